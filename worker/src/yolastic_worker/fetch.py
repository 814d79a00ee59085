"""`yolastic-worker fetch`: download a model over http(s), bounded and verified, before a worker starts (an init container)."""

import base64
import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from yolastic_worker.settings import FetchSettings
from yolastic_worker.types import WorkerFailure

_CHUNK_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.5
_SOCKET_TIMEOUT_S: Final = 20.0
_FINAL_STATUSES: Final = frozenset({400, 401, 403, 404, 405, 410, 451})


class _Transient(Exception):  # noqa: N818 - worth another try
    """The download failed in a way that may pass."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never from https to http, and takes the credentials only to the host they were meant for."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:  # noqa: PLR0917
        """As urllib, with the two rules."""
        new, old = urllib.parse.urlsplit(newurl), urllib.parse.urlsplit(req.full_url)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
            raise urllib.error.URLError(f"a redirect to {new.scheme}:// is not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (new.scheme, new.hostname, new.port) != (old.scheme, old.hostname, old.port):
            request.remove_header("Authorization")
        return request


def authorization(environment: Mapping[str, str]) -> str | None:
    """The Authorization header from YOLASTIC_MODEL_token, or _username and _password; None without credentials.

    Raises:
        WorkerFailure: BadConfiguration, when the token fits into no header; its text never holds the value.
            CredentialsMissing, when a Secret was named (YOLASTIC_MODEL_SECRET) and none of it is here.
    """
    token = environment.get("YOLASTIC_MODEL_token", "").strip()
    if token:
        # http.client would refuse it too, with the whole header in its message.
        if not all("!" <= character <= "~" for character in token):
            message = "key token of the model's credentials must be one line of printable ASCII without blanks"
            raise WorkerFailure("BadConfiguration", message)
        return f"Bearer {token}"
    user, password = environment.get("YOLASTIC_MODEL_username"), environment.get("YOLASTIC_MODEL_password")
    if user is None or password is None:
        if secret := environment.get("YOLASTIC_MODEL_SECRET"):
            message = f"Secret {secret} is not in this namespace, or has neither key token nor keys username and password"
            raise WorkerFailure("CredentialsMissing", message)
        return None
    # A line break at the end comes from the file a Secret was made of; bytes that are no UTF-8 go as they are.
    pair = ":".join(part.rstrip("\r\n") for part in (user, password))
    return "Basic " + base64.b64encode(pair.encode(errors="surrogateescape")).decode("ascii")


def fetch(settings: FetchSettings, environment: Mapping[str, str] | None = None) -> None:
    """Download to a temporary file beside the output, verify it, then give it its name.

    Raises:
        WorkerFailure: DownloadFailed, ChecksumMismatch, BadConfiguration.
    """
    parts = urllib.parse.urlsplit(settings.uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WorkerFailure("BadConfiguration", "--uri takes https:// and http:// only")
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without credentials or a signed query
    if _already_there(settings):
        return
    request = urllib.request.Request(settings.uri, headers={"User-Agent": "yolastic-worker"})
    header = authorization(os.environ if environment is None else environment)
    if header is not None:
        request.add_header("Authorization", header)
    deadline_s = time.monotonic() + settings.timeout_s
    temporary = settings.output.with_name(f".{settings.output.name}.part")
    try:
        settings.output.parent.mkdir(parents=True, exist_ok=True)
        digest = _with_attempts(request, temporary, settings, deadline_s, shown)
        if digest != settings.sha256:
            raise WorkerFailure("ChecksumMismatch", f"the sha256 of {shown} is {digest}, not {settings.sha256}")
        temporary.replace(settings.output)
    except OSError as error:
        raise WorkerFailure("DownloadFailed", f"{settings.output} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _already_there(settings: FetchSettings) -> bool:
    """A restarted pod has its model already."""
    try:
        with settings.output.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == settings.sha256
    except OSError:
        return False


def _with_attempts(
    request: urllib.request.Request, temporary: Path, settings: FetchSettings, deadline_s: float, shown: str
) -> str:
    pause_s = _FIRST_PAUSE_S
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _download(request, temporary, settings.limit_bytes, deadline_s)
        except _Transient as error:
            left_s = deadline_s - time.monotonic()
            if attempt == _ATTEMPTS or left_s <= pause_s:
                raise WorkerFailure("DownloadFailed", f"{shown}: {error}") from error
            time.sleep(pause_s)
            pause_s *= 2
        except _Final as error:
            raise WorkerFailure("DownloadFailed", f"{shown}: {error}") from error
    raise AssertionError("unreachable: the last attempt returns or raises")


class _Final(Exception):  # noqa: N818 - no use in trying again
    """The download failed for good."""


def _download(request: urllib.request.Request, temporary: Path, limit_bytes: int, deadline_s: float) -> str:
    """sha256 of what was written to `temporary`."""
    opener = urllib.request.build_opener(_Redirects())
    timeout_s = max(0.1, min(_SOCKET_TIMEOUT_S, deadline_s - time.monotonic()))
    digest, size = hashlib.sha256(), 0
    try:
        with opener.open(request, timeout=timeout_s) as answer, temporary.open("wb") as file:
            announced = answer.headers.get("Content-Length", "")
            if announced.isdigit() and int(announced) > limit_bytes:
                raise _Final(f"the file has {announced} bytes, more than the limit of {limit_bytes}")
            while chunk := answer.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > limit_bytes:
                    raise _Final(f"the file is larger than the limit of {limit_bytes} bytes")
                if time.monotonic() > deadline_s:
                    raise _Final("the download took too long")
                digest.update(chunk)
                file.write(chunk)
            if announced.isdigit() and size != int(announced):
                raise _Transient(f"the connection closed after {size} of {announced} bytes")
    except urllib.error.HTTPError as error:
        kind = _Final if error.code in _FINAL_STATUSES else _Transient
        # Not the server's own words: they may repeat the credentials they were sent.
        raise kind(f"the server answered {error.code} {http.client.responses.get(error.code, '')}".rstrip()) from error
    except urllib.error.URLError as error:
        raise _Transient(f"{error.reason}") from error
    except (ConnectionError, TimeoutError) as error:
        raise _Transient(f"the connection failed: {error}") from error
    except (ValueError, http.client.InvalidURL) as error:
        # Its text holds what could not be sent: a header with credentials, or a signed query.
        raise _Final(f"the request cannot be sent ({type(error).__name__})") from None
    except http.client.HTTPException as error:
        raise _Transient(f"the answer is broken ({type(error).__name__})") from None
    return digest.hexdigest()
