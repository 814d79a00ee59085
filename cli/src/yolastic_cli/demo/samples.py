"""What the demo saw: one sample a tick, and the sums at its end. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from yolastic_cli.load import Answer, percentile


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the run over one tick."""

    at_s: float
    phase: str
    sent_per_s: float
    """The rate that is played now; what was really sent is in the answers."""
    answered_per_s: float
    ready: int
    desired: int
    base: int | None
    ceiling: int | None
    batch: float | None
    """Mean images a batch over the tick; None when none ran."""
    queue: int
    load_ratio: float | None
    p50_s: float | None
    p95_s: float | None
    failed: int
    """Requests that failed so far."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something the run had to show, and whether it did."""

    text: str
    held: bool


@dataclass(slots=True)
class Run:
    """Everything a run collected."""

    samples: list[Sample] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    notes: list[tuple[float, str]] = field(default_factory=list)
    """(seconds, sentence): decisions as they were made."""


def sent_per_s(answers: Sequence[Answer], seconds: int) -> list[int]:
    """Requests sent in each second of a run."""
    counts = [0] * (seconds + 1)
    for answer in answers:
        counts[min(int(answer.sent_s), seconds)] += 1
    return counts


def failures(answers: Sequence[Answer]) -> list[Answer]:
    """Answers that are not 200."""
    return [answer for answer in answers if answer.status != 200]


def phase_latencies(run: Run, start_s: float, end_s: float) -> tuple[float, float]:
    """(p50, p95) in seconds of the requests sent in a stretch of the run."""
    values = [answer.latency_s for answer in run.answers if start_s <= answer.sent_s < end_s and answer.status == 200]
    return percentile(values, 50), percentile(values, 95)


def recall_and_precision(answers: Sequence[Answer]) -> tuple[float, float]:
    """Share of the labelled objects that were found, and of the boxes that are right."""
    expected = sum(answer.expected for answer in answers)
    found = sum(answer.found for answer in answers)
    boxes = found + sum(answer.extra for answer in answers)
    return found / expected if expected else 0.0, found / boxes if boxes else 0.0


def requirements(run: Run, *, min_replicas: int) -> list[Requirement]:
    """What a good run shows; the demo is ok only if all of it held."""
    failed = failures(run.answers)
    recall, precision = recall_and_precision(run.answers)
    most = max((sample.ready for sample in run.samples), default=0)
    last = run.samples[-1].ready if run.samples else 0
    largest = max((sample.batch for sample in run.samples if sample.batch is not None), default=0.0)
    first = failed[0] if failed else None
    why = f"; the first: {first.status or first.error} at {first.sent_s:.1f} s {first.error}" if first else ""
    return [
        Requirement(f"no request failed ({len(run.answers)} sent, {len(failed)} failed{why})", bool(run.answers) and not failed),
        Requirement(f"the answers agree with the labels (found {recall:.1%}, right {precision:.1%}; at least 90 % each)",
                    recall >= 0.9 and precision >= 0.9),
        Requirement(f"batches grew with the load (mean of a tick up to {largest:.1f} images)", largest >= 4),
        Requirement(f"workers came ({most} at most)", most > min_replicas),
        Requirement(f"and went again ({last} at the end)", last == min_replicas),
    ]  # fmt: skip
