"""What happens, as it happens: a table that redraws on a terminal, plain lines elsewhere."""

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from yolastic_cli.demo.samples import Sample

_ROWS = 14
_PLAIN_EVERY_S = 5.0


class View:
    """Shows samples and decisions. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._samples: list[Sample] = []
        self._notes: list[tuple[float, str]] = []
        self._next_line_s = 0.0

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        else:
            self._console.print(_HEADER, highlight=False, soft_wrap=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def sample(self, sample: Sample) -> None:
        """Show a new sample."""
        self._samples = [*self._samples, sample][-_ROWS:]
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif sample.at_s >= self._next_line_s:
            self._next_line_s += _PLAIN_EVERY_S
            self._console.print(_line(sample), highlight=False, soft_wrap=True)

    def note(self, at_s: float, text: str) -> None:
        """Show a decision."""
        self._notes = [*self._notes, (at_s, text)][-6:]
        if not self._live:
            self._console.print(f"{at_s:6.1f} s  > {text}", highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> Group:
        table = Table(title="yolastic demo", title_justify="left", expand=False)
        for name in _NAMES:
            table.add_column(name, justify="left" if name == "phase" else "right")
        for sample in self._samples:
            table.add_row(*_cells(sample))
        notes = [Text(f"{at_s:6.1f} s  {text}", overflow="ellipsis", no_wrap=True) for at_s, text in self._notes]
        return Group(table, *notes)


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "-" if value is None else format(value * scale, form)


def _cells(sample: Sample) -> tuple[str, ...]:
    ceiling = "-" if sample.ceiling is None else f"{sample.base}..{sample.ceiling}"
    return (
        f"{sample.at_s:.0f}", sample.phase, f"{sample.sent_per_s:.0f}", f"{sample.answered_per_s:.0f}", str(sample.ready),
        str(sample.desired), ceiling, _number(sample.batch, ".1f"), str(sample.queue), _number(sample.load_ratio, ".2f"),
        _number(sample.p50_s, ".0f", 1000), _number(sample.p95_s, ".0f", 1000), str(sample.failed),
    )  # fmt: skip


_WIDTHS = (6, 10, 7, 11, 6, 7, 8, 6, 6, 6, 7, 7, 7)
_NAMES = (
    "s",
    "phase",
    "sent/s",
    "answered/s",
    "ready",
    "wanted",
    "ceiling",
    "batch",
    "queue",
    "load",
    "p50 ms",
    "p95 ms",
    "failed",
)
_HEADER = " ".join(name.rjust(width) for name, width in zip(_NAMES, _WIDTHS, strict=True))


def _line(sample: Sample) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(_cells(sample), _WIDTHS, strict=True))
