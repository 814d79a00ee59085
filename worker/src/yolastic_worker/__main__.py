"""The command `yolastic-worker`: serve, fetch and hash-key. One sentence on stderr when it cannot, never a traceback."""

import contextlib
import logging
import os
import sys
from pathlib import Path

from yolastic_contract.failure import render_failure
from yolastic_worker.lifecycle import ExitCode
from yolastic_worker.logs import set_up
from yolastic_worker.settings import FetchSettings, HashKeySettings, ServeSettings, parse_arguments, termination_log_of
from yolastic_worker.types import WorkerFailure


def _tell(failure: WorkerFailure, termination_log: Path | None) -> None:
    """The reason, for people on stderr and for the cluster in the termination log."""
    line = render_failure(failure.reason, str(failure))
    sys.stderr.write(line + "\n")
    if termination_log is not None:
        with contextlib.suppress(OSError):
            termination_log.write_text(line + "\n", "utf-8")


def _run(settings: ServeSettings | FetchSettings | HashKeySettings) -> ExitCode:
    if isinstance(settings, FetchSettings):
        from yolastic_worker.fetch import fetch  # noqa: PLC0415 - neither command needs the other's imports

        fetch(settings)
        return ExitCode.DRAINED
    if isinstance(settings, HashKeySettings):
        from yolastic_worker.hash_key import hash_key  # noqa: PLC0415

        hash_key(settings)
        return ExitCode.DRAINED
    set_up(settings.log_format)
    from yolastic_worker.serve import serve  # noqa: PLC0415

    return serve(settings)


def run(arguments: list[str]) -> int:
    """Run a command line; its exit code."""
    try:
        code = _run(parse_arguments(arguments))
    except WorkerFailure as failure:
        _tell(failure, termination_log_of(arguments))
        code = ExitCode.DEVICE_LOST if failure.reason == "DeviceLost" else ExitCode.CONFIGURATION
    except KeyboardInterrupt:
        code = ExitCode.DRAINED
    except Exception as error:
        logging.getLogger("yolastic_worker").error("internal error: %r", error, exc_info=error)
        sys.stderr.write(f"internal error: {type(error).__name__}: {error}\n")
        code = ExitCode.INTERNAL
    return int(code)


def main() -> None:
    """The command; ends without waiting for threads that a device or a broken client may hold."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
