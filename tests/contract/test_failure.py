"""The line that carries a worker's reason from its exit to a condition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_contract.failure import REASONS, parse_failure, render_failure


@pytest.mark.parametrize("reason", REASONS)
@given(message=st.text(min_size=1).filter(str.strip))
def test_what_is_rendered_is_read_back(reason: str, message: str) -> None:
    line = render_failure(reason, message)
    assert len(line.splitlines()) == 1
    assert parse_failure(line) == (reason, " ".join(message.split()))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("Traceback (most recent call last):\n  KeyError: 'x'", None),
        ("Something: else", None),
        ("FixedBatch:", None),
        ("FixedBatch: export it with dynamic=True", ("FixedBatch", "export it with dynamic=True")),
        ("a log line\nFixedBatch: one\n", ("FixedBatch", "one")),
        ("DownloadFailed: first\nChecksumMismatch: last\nbye", ("ChecksumMismatch", "last")),
        ("prefix DownloadFailed: no", None),
        ("DownloadFailed: 404: not found", ("DownloadFailed", "404: not found")),
    ],
)
def test_finds_the_last_such_line(text: str, found: tuple[str, str] | None) -> None:
    assert parse_failure(text) == found


def test_only_known_reasons() -> None:
    with pytest.raises(ValueError, match="Unlucky is not one of"):
        render_failure("Unlucky", "x")
