"""Peers as processes: an environment for each, made on first use; started, awaited, and ended with all their children."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from benchmarks.client import CACHE, ROOT, Target
from benchmarks.peer_settings import Peer, Setting

_FOLDER = ROOT / "benchmarks/peers"
_MAKE_S, _READY_S, _END_S = 600.0, 90.0, 4.0


class PeerUnavailableError(Exception):
    """A peer cannot be installed or started here; the message says why."""


def _uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    if not shutil.which(found):
        raise PeerUnavailableError("needs uv to make its environment")
    return found


def versions(peer: Peer) -> str:
    """The peer's own pinned version."""
    lines = (_FOLDER / f"requirements/{peer.key}.txt").read_text().splitlines()
    return next(line.split("==")[1] for line in lines if line.split("==")[0] in (peer.key, f"nvidia-{peer.key}"))


def environment(peer: Peer) -> Path:
    """The bin folder of the peer's environment, made when it is not there: the first Python on which it installs.

    Raises:
        PeerUnavailableError: it installs on none.
    """
    requirements = _FOLDER / f"requirements/{peer.key}.txt"
    said = []
    for python in peer.pythons:
        digest = hashlib.blake2b(requirements.read_bytes() + python.encode(), digest_size=6).hexdigest()
        folder = CACHE / "peers" / f"{peer.key}-{digest}"
        if (folder / "ready").exists():
            return folder / "bin"
        print(f"  making the environment of {peer.name} {versions(peer)} with Python {python} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for command in (
                [_uv(), "venv", "--quiet", "--python", python, str(folder)],
                [_uv(), "pip", "install", "--quiet", "--python", str(folder / "bin/python"), "-r", str(requirements)],
            ):
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MAKE_S)
        except subprocess.CalledProcessError as error:
            said.append(f"Python {python}: {error.stderr.strip().splitlines()[-1] if error.stderr.strip() else error}")
        except subprocess.TimeoutExpired:
            said.append(f"Python {python}: not installed within {_MAKE_S:.0f} s")
        else:
            (folder / "ready").touch()
            return folder / "bin"
        shutil.rmtree(folder, ignore_errors=True)
    raise PeerUnavailableError("cannot be installed: " + "; ".join(said))


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _library_path(python: Path) -> str:
    """Folder of the interpreter's own shared library: PyTriton's server needs it."""
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"]
    own = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    return os.pathsep.join(filter(None, [own, os.environ.get("LD_LIBRARY_PATH", "")]))


def answers(target: Target, timeout_s: float = 5.0) -> bool:
    """One request is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(target.url).port or 0, timeout=timeout_s)
    headers = {"Content-Type": target.content_type, **dict(header.split(": ", 1) for header in target.headers)}
    try:
        connection.request("POST", target.path, target.bodies[0], headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End the process, its group and all it started: asked first, killed after 4 s."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        family = [parent, *parent.children(recursive=True)]
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, timeout=_END_S)
    process.wait(_END_S)


@contextmanager
def serving(peer: Peer, setting: Setting, image: bytes) -> Iterator[Target]:
    """The peer with these settings, answering; ended afterwards, whatever happens.

    Raises:
        PeerUnavailableError: it cannot be installed, or did not answer within 90 s.
    """
    folder = environment(peer)
    port, *more = _free_ports(3)
    told = json.dumps({**setting.values, "ports": more})
    program = [part.format(port=port) for part in peer.program] or [
        "python",
        str(_FOLDER / f"serve_{peer.key}.py"),
        str(port),
        told,
    ]
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))},
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(_FOLDER),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PEER_SETTINGS": told,
        "LD_LIBRARY_PATH": _library_path(folder / "python"),
        **peer.environment,
    }
    with tempfile.TemporaryDirectory(prefix="peer-") as here, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [str(folder / program[0]), *program[1:]],
            cwd=here,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        target = peer.target(f"http://127.0.0.1:{port}", image)
        try:
            deadline_s = time.monotonic() + _READY_S
            while not answers(target):
                if process.poll() is not None or time.monotonic() > deadline_s:
                    output.seek(0)
                    lines = [line for line in output.read()[-4000:].splitlines() if line.strip()]
                    raise PeerUnavailableError(f"does not answer: {lines[-1][:200] if lines else 'it said nothing'}")
                time.sleep(0.1)
            yield target
        finally:
            _end(process)


def main() -> int:
    """Start every peer once with its default settings and say what came of it."""
    from benchmarks.common import random_jpegs  # noqa: PLC0415 - it needs OpenCV
    from benchmarks.peer_settings import PEERS  # noqa: PLC0415

    for peer in PEERS:
        for setting in peer.settings if "--all" in sys.argv else peer.settings[:1]:
            began_s = time.monotonic()
            try:
                with serving(peer, setting, random_jpegs(1, 160, 120, 85)[0]):
                    print(f"{peer.name}, {setting.name}: answers after {time.monotonic() - began_s:.1f} s", flush=True)
            except PeerUnavailableError as error:
                print(f"{peer.name}, {setting.name}: {error}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
