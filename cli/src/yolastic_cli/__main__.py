"""The command `yolastic`. Errors are one sentence on stderr and exit code 2, never a traceback."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from yolastic_cli import explain, plan, up
from yolastic_cli.demo import play
from yolastic_cli.errors import CliError
from yolastic_cli.simulate import command as simulate


class _Parser(argparse.ArgumentParser):
    """One sentence instead of a usage text; `--help` has the rest."""

    def error(self, message: str) -> NoReturn:
        raise CliError(f"{message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(prog="yolastic", description="Serves YOLO models elastically.")
    parser.add_argument("--version", action="version", version=f"yolastic {version('yolastic-cli')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)
    up.configure(commands.add_parser("up", help=up.HELP, description=up.HELP))
    play.configure(commands.add_parser("demo", help=play.HELP, description=play.HELP))
    plan.configure(commands.add_parser("plan", help=plan.HELP, description=plan.HELP))
    explain.configure(commands.add_parser("explain", help=explain.HELP, description=explain.HELP))
    simulate.configure(commands.add_parser("simulate", help=simulate.HELP, description=simulate.HELP))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ellipsis gets a question mark, not a traceback
    try:
        told = build_parser().parse_args(arguments)
        code: int = told.run(told)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except CliError as error:
        sys.stderr.write(f"yolastic: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
