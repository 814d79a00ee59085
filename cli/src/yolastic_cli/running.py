"""How `yolastic explain` finds a `yolastic up` of this host: a socket in a folder of this user alone, one for each process."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from yolastic_operator.model import Ref

_TIMEOUT_S: Final = 2.0
_MOST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Running:
    """What a `yolastic up` says of itself."""

    namespace: str
    name: str
    pid: int
    url: str
    """Where clients send images."""
    status: dict[str, Any]
    """As it would stand in the object; empty before the first turn."""


def folder() -> Path:
    """Where the sockets are."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    return Path(given) / "yolastic" if given else Path(tempfile.gettempdir()) / f"yolastic-{os.getuid()}"


@contextlib.asynccontextmanager
async def answering(ref: Ref, url: str, status: Callable[[], dict[str, Any]]) -> AsyncIterator[str | None]:
    """While inside, whoever connects is told what runs here. Yields why nobody can, None when all is well."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(OSError):
            writer.write(json.dumps(asdict(Running(ref.namespace, ref.name, os.getpid(), url, status()))).encode())
            await writer.drain()
        writer.close()

    path = _own()
    try:
        _make_folder(path.parent)
        # The same number as that of a process that was killed.
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(answer, path)
    except OSError as error:
        yield f"{path}: {error.strerror or error}"
        return
    try:
        yield None
    finally:
        server.close()
        vanish()


def vanish() -> None:
    """Leave no file behind: for the end, and for a process that ends without it."""
    with contextlib.suppress(OSError):
        _own().unlink(missing_ok=True)
        folder().rmdir()  # fails while others are in it


def find(name: str, namespace: str | None = None) -> list[Running]:
    """Those that run an inference of that name here, the newest first; sockets of processes that are gone are cleared away."""
    try:
        _make_folder(folder())
        paths = sorted(folder().glob("*.sock"), key=lambda path: path.lstat().st_mtime, reverse=True)
    except OSError:
        return []
    told = [running for path in paths if (running := _ask(path)) is not None]
    return [one for one in told if one.name == name and namespace in {None, one.namespace}]


def _own() -> Path:
    return folder() / f"{os.getpid()}.sock"


def _make_folder(path: Path) -> None:
    """Raises OSError when the folder is not this user's alone: then somebody else could answer there."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} is not a folder of this user alone")


def _ask(path: Path) -> Running | None:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            said = bytearray()
            while part := connection.recv(65536):
                said += part
                if len(said) > _MOST_BYTES:
                    return None
        return Running(**json.loads(said))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return None
    except (OSError, ValueError, TypeError):
        return None
