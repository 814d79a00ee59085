"""The operator with a wall clock that is wrong by as many seconds as stand in a file: `wrong_clock.py FILE`."""

import runpy
import sys
import time
from pathlib import Path

_true = time.time
_file = Path(sys.argv.pop())


def wrong() -> float:
    """Unix time as this host believes."""
    return _true() + float(_file.read_text() or 0)


time.time = wrong
runpy.run_module("yolastic_operator", run_name="__main__")
