"""`yolastic simulate SCENARIO`: what serving would come to, computed in a minute with the real state machines."""

import argparse
import json
import sys

from yolastic_cli.errors import CliError
from yolastic_cli.simulate import own_day
from yolastic_cli.up import duration_within

SCENARIOS = ("plant", "rush-hours", "spike", "outage")
FACTORY = "a plant's day with fixed and with elastic batches, sizes planned"
CLOSED = "the others: a day in a closed loop, beside autoscalers of other kinds; own: with the load of --load"
HELP = "the worker's and the operator's own rules on a fast clock, with a simulated device"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("scenario", choices=["factory", *SCENARIOS, "own"], help=f"factory: {FACTORY}; {CLOSED}")
    parser.add_argument("--seed", type=seed, default=7, help="of the arrivals; the same seed gives the same figures (default: 7)")
    parser.add_argument(
        "--hour",
        type=hour,
        metavar="TIME",
        help="factory: simulated time for an hour of the day, 2s to 1h (default: 20s)",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    own_day.configure(parser)
    parser.set_defaults(run=run)


def seed(text: str) -> int:
    """A number that the arrivals are drawn from."""
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text} is not a seed from 0 to {(1 << 32) - 1}")
    return int(text)


def hour(text: str) -> float:
    """Seconds an hour of the day takes."""
    return duration_within(text, "2s", "1h")


def run(arguments: argparse.Namespace) -> int:
    """Simulate and show; 1 when a figure that the design promises was not reached."""
    # numpy and rich take a moment that every other command would wait.
    from rich.console import Console  # noqa: PLC0415

    from yolastic_cli.simulate import days, factory, report  # noqa: PLC0415

    if arguments.hour is not None and arguments.scenario != "factory":
        raise CliError("--hour is for the scenario factory")
    own_day.check(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    found: factory.Factory | days.Comparison
    if arguments.scenario == "factory":
        found = factory.play(arguments.seed, arguments.hour or hour("20s"))
    else:
        own = arguments.scenario == "own"
        day = days.Day("own", "a day of your own", **own_day.settings(arguments)) if own else days.DAYS[arguments.scenario]
        found = days.play(day, arguments.seed)
    if arguments.json:
        print(json.dumps(report.as_json(found), indent=2))
    elif isinstance(found, factory.Factory):
        report.show_factory(found, console)
    else:
        report.show_day(found, console)
    return 0 if all(claim.held for claim in found.claims) else 1
