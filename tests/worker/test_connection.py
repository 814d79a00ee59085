"""An answer goes out in one piece."""

from types import SimpleNamespace
from typing import Any

from yolastic_worker.connection import WholeAnswer


class Transport:
    """Keeps what is written, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.pieces.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def answer() -> tuple[Any, Transport, WholeAnswer]:
    transport = Transport()
    cycle: Any = SimpleNamespace(transport=transport, response_started=False)
    return cycle, transport, WholeAnswer(cycle)


def test_the_head_goes_out_with_the_first_of_the_body_and_the_rest_as_it_comes() -> None:
    cycle, transport, whole = answer()
    cycle.response_started = True
    whole.write(b"head ")
    assert transport.pieces == []
    whole.write(b"body")
    whole.write(b"")
    whole.write(b"more")
    assert b"".join(transport.pieces) == b"head bodymore"
    assert transport.pieces[0] == b"head body"


def test_a_word_before_the_answer_does_not_wait() -> None:
    cycle, transport, whole = answer()
    whole.write(b"100 Continue")
    assert transport.pieces == [b"100 Continue"]
    cycle.response_started = True
    whole.write(b"head ")
    whole.write(b"body")
    assert transport.pieces == [b"100 Continue", b"head body"]


def test_a_head_that_nothing_follows_goes_out_before_the_end() -> None:
    cycle, transport, whole = answer()
    cycle.response_started = True
    whole.write(b"head")
    whole.close()
    assert transport.pieces == [b"head"]
    assert whole.is_closing()
