"""A day of the user's own for the closed loop: its load, device and bounds from the command line."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any, Final

from pydantic import ValidationError

from yolastic_cli.errors import CliError
from yolastic_cli.load import Phase
from yolastic_cli.simulate.device import LARGE, Device
from yolastic_cli.up import duration, duration_within
from yolastic_contract.inference import Autoscaling
from yolastic_operator.refusal import describe

OBJECTIVE: Final = "500ms"
DEVICE: Final = f"{LARGE.fixed_s * 1e3:g}ms+{LARGE.per_image_s * 1e3:g}ms"
START: Final = "40s"
LONGEST_S: Final = 24 * 3600.0
MOST_IMAGES: Final = 2_000_000
"""Each is played once for every way of sizing."""
MOST_WORKERS: Final = 100
_PHASE: Final = re.compile(r"^(\S+)\s+(\d+(?:\.\d+)?)(?:\.\.(\d+(?:\.\d+)?))?$")
_DEVICE: Final = re.compile(r"^(\d+(?:\.\d+)?)ms\+(\d+(?:\.\d+)?)ms$")


def configure(parser: ArgumentParser) -> None:
    """Declare the arguments of a day of one's own."""
    own = parser.add_argument_group("own", "a day of your own; the device is one model on one accelerator")
    own.add_argument(
        "--load", type=phases, metavar="PHASES", help='how long what comes, images/s: "5m 20, 2m 200, 10m 20..300" (.. is a ramp)'
    )
    own.add_argument(
        "--device",
        type=device,
        metavar="TIMES",
        help=f"of a batch, and of each image in it (default: {DEVICE}, a large model on a T4; a small one: 2.6ms+2.4ms)",
    )
    own.add_argument("--objective", type=objective, metavar="TIME", help=f"latency at p95 (default: {OBJECTIVE})")
    own.add_argument("--start", type=start, metavar="TIME", help=f"from order to Ready (default: {START})")
    own.add_argument("--workers", type=workers, metavar="N", help="that stand when the day begins (default: 1)")
    own.add_argument(
        "--set",
        dest="fields",
        type=field,
        action="append",
        metavar="NAME=VALUE",
        help="a field of spec.autoscaling, as minReplicas=2; the bounds are those of the others, too (default: maxReplicas=12)",
    )


def phases(text: str) -> tuple[Phase, ...]:
    """`5m 20, 2m 20..200`: phases of a day, a rate or a ramp each."""
    found = []
    for number, part in enumerate(text.split(","), 1):
        match = _PHASE.match(part.strip())
        if match is None:
            raise ArgumentTypeError(f'"{part.strip()}" is not a phase such as "5m 20" or "5m 20..200"')
        seconds, from_per_s = duration(match[1]), float(match[2])
        if seconds < 1:
            raise ArgumentTypeError(f'"{part.strip()}" is shorter than a second')
        found.append(Phase(f"phase {number}", seconds, from_per_s, float(match[3] or match[2])))
    images = sum(phase.seconds * (phase.from_per_s + phase.to_per_s) / 2 for phase in found)
    if sum(phase.seconds for phase in found) > LONGEST_S:
        raise ArgumentTypeError("this is longer than 24h")
    if not 1 <= images <= MOST_IMAGES:
        raise ArgumentTypeError(f"these are {images:,.0f} images; a day has 1 to {MOST_IMAGES:,}")
    return tuple(found)


def device(text: str) -> Device:
    """`13ms+12ms`: the time of a batch, and of each image in it."""
    match = _DEVICE.match(text)
    if match is None or not 0.01 <= float(match[2]) <= 10_000 or float(match[1]) > 10_000:
        raise ArgumentTypeError(f"{text} is not a time of a batch and of an image, such as 13ms+12ms")
    return Device(float(match[1]) / 1e3, float(match[2]) / 1e3)


def objective(text: str) -> float:
    """A latency in seconds."""
    return duration_within(text, "1ms", "1m")


def start(text: str) -> float:
    """How long a worker takes to start, seconds."""
    return duration_within(text, "1s", "30m")


def workers(text: str) -> int:
    """Workers at the start."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise ArgumentTypeError(f"{text} is not a number of workers from 1 to {MOST_WORKERS}")
    return int(text)


def field(text: str) -> tuple[str, str | int]:
    """`minReplicas=2`: a field and its value."""
    name, found, value = text.partition("=")
    if not found or not name or not value:
        raise ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, int(value) if value.isdecimal() else value


def check(arguments: Namespace) -> None:
    """The arguments above are of a day of one's own, and such a day has a load.

    Raises:
        CliError: one is missing, or would be ignored.
    """
    given = [name for name in ("load", "device", "objective", "start", "workers", "set") if _given(arguments, name)]
    if arguments.scenario != "own" and given:
        raise CliError(f"--{given[0]} is for the scenario own")
    if arguments.scenario == "own" and "load" not in given:
        raise CliError('own needs --load, as --load "5m 20, 2m 200, 10m 20"')


def settings(arguments: Namespace) -> dict[str, Any]:
    """The fields of a `Day` that differ from its defaults.

    Raises:
        CliError: a field of `spec.autoscaling` that is not there, a value that it does not take, or an objective that not even
            one image meets.
    """
    on: Device = arguments.device or LARGE
    objective_s = arguments.objective or objective(OBJECTIVE)
    if objective_s < on.seconds(1):
        raise CliError(f"an objective of {objective_s * 1e3:g} ms is less than one image takes, {on.seconds(1) * 1e3:g} ms")
    return {
        "phases": arguments.load,
        "device": on,
        "objective_s": objective_s,
        "first": arguments.workers or 1,
        "start_s": arguments.start or start(START),
        "autoscaling": _autoscaling(arguments),
    }


def _given(arguments: Namespace, name: str) -> bool:
    return getattr(arguments, "fields" if name == "set" else name) is not None


def _autoscaling(arguments: Namespace) -> dict[str, Any]:
    """`spec.autoscaling` of the day.

    Raises:
        CliError: a field that is not there, or a value that it does not take.
    """
    fields = {"minReplicas": 1, "maxReplicas": 12, **dict(arguments.fields or ())}
    try:
        found = Autoscaling.model_validate(fields)
    except ValidationError as error:
        raise CliError(describe(error, "spec.autoscaling")) from error
    if found.max_replicas > MOST_WORKERS:
        raise CliError(f"spec.autoscaling.maxReplicas: at most {MOST_WORKERS} workers are simulated")
    return fields
