"""API keys: what a file may hold, who may enter, and how often. Clocks are injected; no key and no name leaks."""

import contextlib
import io
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolastic_worker.api.http import Refusal, Request
from yolastic_worker.api.keys import (
    Allowance,
    ApiKey,
    Gate,
    KeyFileError,
    KeyRing,
    digest_of,
    is_key,
    open_gate,
    parse_keys,
    parse_line,
    render_line,
)
from yolastic_worker.hash_key import hash_key
from yolastic_worker.settings import HashKeySettings
from yolastic_worker.types import WorkerFailure

KEY = b"yk_" + b"0123456789abcdef" * 2
OTHER = b"yk_" + b"fedcba9876543210" * 2
HEX = digest_of(KEY).hex()
DAY_S = 86400.0


def bearer(key: bytes) -> bytes:
    return b"Bearer " + key


def line(key: bytes = KEY, name: str = "camera-1", rate: float | None = None, quota: int | None = None) -> str:
    return render_line(ApiKey(name, digest_of(key), rate, quota)) + "\n"


class Clock:
    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def request(*authorizations: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        raise AssertionError("the door reads no body")

    headers = [(b"host", b"a"), *((b"authorization", value) for value in authorizations)]
    return Request({"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}, receive)


# --- the file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a:{HEX}", ApiKey("a", digest_of(KEY))),
        (f"a:{HEX.upper()}", ApiKey("a", digest_of(KEY))),
        (f" camera-1.left_2 : {HEX} : 50 : 100000 ", ApiKey("camera-1.left_2", digest_of(KEY), 50.0, 100_000)),
        (f"a:{HEX}:0.5", ApiKey("a", digest_of(KEY), 0.5)),
        (f"a:{HEX}::10", ApiKey("a", digest_of(KEY), None, 10)),
        (f"a:{HEX}::", ApiKey("a", digest_of(KEY))),
        (f"\ufeff# comment\r\n\r\n  # another\r\na:{HEX}\r\n", ApiKey("a", digest_of(KEY))),
    ],
)
def test_good_lines(tmp_path: Path, text: str, expected: ApiKey) -> None:
    (tmp_path / "keys").write_bytes(text.encode())
    assert KeyRing(tmp_path / "keys").check(bearer(KEY)) == expected


BAD_FILES = {
    "": "it has no key",
    "# nothing\n": "it has no key",
    f"# one\n{HEX}": "line 2: is not name:sha256",
    f"a:{HEX}:1:2:3": "line 1: is not name:sha256",
    f":{HEX}": "line 1: the name has",
    f"-a:{HEX}": "line 1: the name has",
    f"a b:{HEX}": "line 1: the name has",
    f"{'a' * 64}:{HEX}": "line 1: the name has",
    f"a:{KEY.decode()}": "line 1: after the name comes the key's sha256",
    f"a:{HEX[:-1]}": "line 1: after the name comes the key's sha256",
    f"a:{HEX}:0": "line 1: the rate is",
    f"a:{HEX}:-1": "line 1: the rate is",
    f"a:{HEX}:1e9": "line 1: the rate is",
    f"a:{HEX}:nan": "line 1: the rate is",
    f"a:{HEX}:١": "line 1: the rate is",
    f"a:{HEX}::0": "line 1: the daily quota is",
    f"a:{HEX}::1.5": "line 1: the daily quota is",
    f"a:{HEX}\nb:{HEX}": "line 2: this key is there already",
    f"a:{HEX}:1\na:{digest_of(OTHER).hex()}:2": "line 2: this name is there already with another rate",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_says_which_line_and_never_what_is_in_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(WorkerFailure) as failure:
        open_gate(tmp_path / "keys")
    assert failure.value.reason == "BadConfiguration"
    assert BAD_FILES[text] in str(failure.value)
    assert KEY.decode() not in str(failure.value)
    assert HEX[:-1] not in str(failure.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailure, match="there is no API keys file") as failure:
        open_gate(tmp_path / "gone")
    assert failure.value.reason == "ApiKeysMissing"
    with pytest.raises(WorkerFailure, match="cannot be read: Is a directory"):
        open_gate(tmp_path)
    (tmp_path / "keys").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkerFailure, match="is not UTF-8 text"):
        open_gate(tmp_path / "keys")
    (tmp_path / "keys").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(WorkerFailure, match="larger than"):
        open_gate(tmp_path / "keys")
    (tmp_path / "keys").write_text("".join(f"a:{number:064x}\n" for number in range(4097)))
    with pytest.raises(WorkerFailure, match="at most 4096 keys"):
        open_gate(tmp_path / "keys")


KEYS = st.builds(
    ApiKey,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
    st.none() | st.integers(1, 999_999_999).map(lambda thousandths: thousandths / 1000),
    st.none() | st.integers(1, 10**11),
)


@given(KEYS)
def test_a_line_says_the_key_and_nothing_is_lost(key: ApiKey) -> None:
    assert parse_line(render_line(key)) == key


@given(st.text(max_size=200))
def test_any_text_is_a_file_or_a_refusal(text: str) -> None:
    with contextlib.suppress(KeyFileError):
        assert parse_keys(text)


# --- who may enter


@pytest.mark.parametrize(
    ("authorization", "detail"),
    [
        (b"", b""), (b"Bearer", b""), (b"Bearer ", b""), (b"Basic " + KEY, b""), (KEY, b""),
        (bearer(OTHER), b', error="invalid_token"'), (bearer(KEY[:-1]), b', error="invalid_token"'),
        (bearer(KEY + b"0"), b', error="invalid_token"'), (bearer(KEY.upper()), b', error="invalid_token"'),
        (bearer(HEX.encode()), b', error="invalid_token"'), (bearer(b"short"), b', error="invalid_token"'),
        (bearer(b"a" * 5000), b', error="invalid_token"'), (bearer(KEY + b"\xff"), b', error="invalid_token"'),
        (bearer(KEY + b" " + KEY), b', error="invalid_token"'), (b"Bearer\t" + KEY, b""),
    ],
)  # fmt: skip
def test_who_is_refused(tmp_path: Path, authorization: bytes, detail: bytes) -> None:
    (tmp_path / "keys").write_text(line())
    with pytest.raises(Refusal) as refusal:
        Gate(KeyRing(tmp_path / "keys")).enter(request(authorization))
    assert (refusal.value.status, refusal.value.code) == (401, "unauthorized")
    assert refusal.value.headers == ((b"www-authenticate", b'Bearer realm="yolastic"' + detail),)
    assert KEY.decode() not in refusal.value.message


def test_a_short_key_lets_nobody_in_even_when_its_hash_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(line(b"secret"))
    with pytest.raises(Refusal):
        KeyRing(tmp_path / "keys").check(bearer(b"secret"))


@pytest.mark.parametrize("authorization", [bearer(KEY), b"bearer " + KEY, b"BEARER   " + KEY + b" "])
def test_who_enters(tmp_path: Path, authorization: bytes) -> None:
    (tmp_path / "keys").write_text(line() + line(OTHER, "camera-2"))
    asked = request(authorization)
    Gate(KeyRing(tmp_path / "keys")).enter(asked)
    assert asked.client == "camera-1"


def test_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(line())
    with pytest.raises(Refusal, match="Authorization: Bearer KEY"):
        Gate(KeyRing(tmp_path / "keys")).enter(request())


def test_without_a_file_everybody_enters() -> None:
    asked = request()
    open_gate(None).enter(asked)
    assert asked.client == ""


# --- the file changes


def look_later(ring: KeyRing, clock: Clock, key: bytes) -> bool:
    clock.now_s += 1.0
    try:
        ring.check(bearer(key))
    except Refusal:
        return False
    return True


def test_a_secret_that_swaps_its_links_is_read_again(tmp_path: Path) -> None:
    """As the kubelet does it: ..data is a link to a folder with a date, and is replaced by a rename."""
    clock = Clock()
    for folder, text in (("..1", line()), ("..2", line(OTHER))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keys").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    ring = KeyRing(tmp_path / "keys", clock)
    assert look_later(ring, clock, KEY)
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert not look_later(ring, clock, KEY), "a key that was taken away"
    assert look_later(ring, clock, OTHER)


def test_a_file_written_in_place_is_read_again_within_a_second(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keys"
    path.write_text(line())
    ring = KeyRing(path, clock)
    path.write_text(line() + line(OTHER, "camera-2"))
    clock.now_s = 0.5
    with pytest.raises(Refusal):
        ring.check(bearer(OTHER))
    assert look_later(ring, clock, OTHER)


def test_a_file_that_breaks_or_goes_keeps_the_keys_known_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, path = Clock(), tmp_path / "keys"
    path.write_text(line())
    ring = KeyRing(path, clock)
    with caplog.at_level(logging.INFO):
        path.write_text(f"camera-1:{OTHER.decode()}")
        assert all(look_later(ring, clock, KEY) for _ in range(3))
        path.unlink()
        assert all(look_later(ring, clock, KEY) for _ in range(3))
        path.write_text(line(OTHER))
        assert not look_later(ring, clock, KEY)
        assert look_later(ring, clock, OTHER)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "INFO"], "each trouble once"
    assert OTHER.decode() not in caplog.text
    assert KEY.decode() not in caplog.text


def test_a_name_keeps_its_allowance_when_its_key_changes(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keys"
    path.write_text(line(quota=2))
    gate = Gate(KeyRing(path, clock), clock, Clock(1e9))
    gate.enter(request(bearer(KEY)))
    path.write_text(line(quota=2) + line(OTHER, quota=2))
    clock.now_s = 5.0
    gate.enter(request(bearer(OTHER)))
    for key in (KEY, OTHER):
        with pytest.raises(Refusal, match="requests of the day"):
            gate.enter(request(bearer(key)))


# --- how often


def refused(allowance: Allowance, key: ApiKey, now_s: float, unix_s: float = 1e9) -> Refusal | None:
    try:
        allowance.take(key, now_s, unix_s)
    except Refusal as refusal:
        return refusal
    return None


def test_a_rate_allows_a_second_at_once_and_then_its_pace() -> None:
    key, allowance = ApiKey("a", b"", rate_per_s=4.0), Allowance(0.0)
    assert [refused(allowance, key, 0.0) is None for _ in range(6)] == [True] * 4 + [False] * 2
    assert refused(allowance, key, 0.24) is not None
    assert refused(allowance, key, 0.25) is None
    refusal = refused(allowance, key, 0.25)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, "rate_limited", 1)
    assert [refused(allowance, key, 100.0) is None for _ in range(6)] == [True] * 4 + [False] * 2, (
        "never more than a second's worth"
    )


def test_a_rate_below_one_says_how_long_to_wait() -> None:
    key, allowance = ApiKey("a", b"", rate_per_s=0.1), Allowance(0.0)
    assert refused(allowance, key, 0.0) is None
    refusal = refused(allowance, key, 2.0)
    assert refusal is not None
    assert refusal.retry_after_s == 8
    assert refused(allowance, key, 10.0) is None


def test_a_quota_ends_with_the_day() -> None:
    key, allowance, noon_s = ApiKey("a", b"", daily_quota=2), Allowance(0.0), 20_000 * DAY_S + DAY_S / 2
    assert [refused(allowance, key, 0.0, noon_s) is None for _ in range(3)] == [True, True, False]
    refusal = refused(allowance, key, 0.0, noon_s + 10.5)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, "quota_exceeded", DAY_S / 2 - 10)
    assert refused(allowance, key, 0.0, noon_s - DAY_S) is not None, "a clock that is set back gives nothing back"
    assert refused(allowance, key, 0.0, noon_s + DAY_S / 2) is None


@given(
    st.floats(0.01, 1000.0),
    st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200),
    st.none() | st.integers(1, 50),
)
def test_never_more_than_the_rate_and_the_quota(rate_per_s: float, pauses_s: list[float], quota: int | None) -> None:
    """In any span, from any request on: at most a second's worth and what the rate brings; Retry-After is enough."""
    key, allowance, now_s, taken = ApiKey("a", b"", rate_per_s, quota), Allowance(0.0), 0.0, []
    for pause_s in pauses_s:
        now_s += pause_s
        refusal = refused(allowance, key, now_s)
        if refusal is None:
            taken.append(now_s)
        elif refusal.code == "rate_limited":
            assert refusal.retry_after_s is not None
            now_s += refusal.retry_after_s + 1e-6
            late = refused(allowance, key, now_s)
            assert late is None, "whoever waits as told is served"
            taken.append(now_s)
    assert quota is None or len(taken) <= quota
    for first, since_s in enumerate(taken):
        for last in range(first, len(taken)):
            span_s = taken[last] - since_s
            assert last - first + 1 <= max(1.0, rate_per_s) + rate_per_s * span_s + 1e-6


def test_allowances_do_not_grow_without_bound(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keys"
    gate: Gate | None = None
    for number in range(3):
        names = [f"n{number}-{index}" for index in range(2000)]
        path.write_text("".join(f"{name}:{digest_of(KEY + name.encode()).hex()}\n" for name in names))
        os.utime(path, ns=(number, number))
        clock.now_s += 2.0
        gate = gate or Gate(KeyRing(path, clock), clock, Clock(1e9))
        for name in names:
            gate.enter(request(bearer(KEY + name.encode())))
    assert gate is not None
    assert len(gate._allowances) <= 4096


# --- hash-key


def hashed(settings: HashKeySettings, given_key: bytes = b"") -> tuple[str, str]:
    line_to, key_to = io.StringIO(), io.StringIO()
    hash_key(settings, io.BytesIO(given_key), line_to, key_to)
    return line_to.getvalue(), key_to.getvalue()


def test_a_key_is_made_and_its_line_lets_it_in(tmp_path: Path) -> None:
    told_line, told = hashed(HashKeySettings("camera-1", "2.5", "1000", from_stdin=False))
    key = next(word for word in told.split() if word.startswith("yk_")).encode()
    assert len(key) >= 43
    assert is_key(key)
    (tmp_path / "keys").write_text(told_line)
    assert KeyRing(tmp_path / "keys").check(bearer(key)) == ApiKey("camera-1", digest_of(key), 2.5, 1000)
    assert told != hashed(HashKeySettings("camera-1", "2.5", "1000", from_stdin=False))[1], "never the same twice"


def test_a_key_from_standard_input_is_not_shown_again() -> None:
    told_line, told = hashed(HashKeySettings("a", "", "", from_stdin=True), KEY + b"\n")
    assert (told_line, told) == (f"a:{HEX}\n", "")


@pytest.mark.parametrize(
    ("settings", "given_key"),
    [
        (HashKeySettings("a", "", "", from_stdin=True), b"short\n"),
        (HashKeySettings("a", "", "", from_stdin=True), b""),
        (HashKeySettings("a", "", "", from_stdin=True), b"a" * 300),
        (HashKeySettings("a", "", "", from_stdin=True), b"pass word pass word pass word pass word\n"),
        (HashKeySettings("a:b", "", "", from_stdin=True), KEY),
        (HashKeySettings("", "", "", from_stdin=True), KEY),
        (HashKeySettings("a", "fast", "", from_stdin=True), KEY),
        (HashKeySettings("a", "", "-1", from_stdin=True), KEY),
    ],
)
def test_what_hash_key_refuses(settings: HashKeySettings, given_key: bytes) -> None:
    with pytest.raises(WorkerFailure) as failure:
        hashed(settings, given_key)
    assert failure.value.reason == "BadConfiguration"
    assert given_key.decode().strip() not in str(failure.value) or not given_key
