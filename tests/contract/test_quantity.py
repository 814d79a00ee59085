"""Quantities are read as `k8s.io/apimachinery/pkg/api/resource` reads them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from yolastic_contract.quantity import Quantity, format_bytes, parse_bytes, parse_quantity

MAX = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # From the accepted cases of quantity_test.go.
        ("0", "0"), ("0n", "0"), ("0Ki", "0"), ("1Ki", 1024), ("8Ki", 8 * 1024), ("7Mi", 7 * 1024**2), ("6Gi", 6 * 1024**3),
        ("5Ti", 5 * 1024**4), ("4Pi", 4 * 1024**5), ("3Ei", 3 * 1024**6), ("10n", "1e-8"), ("10u", "1e-5"), ("10m", "0.01"),
        ("10", 10), ("10k", 10_000), ("50M", 50_000_000), ("4G", 4 * 10**9), ("3T", 3 * 10**12), ("5P", 5 * 10**15),
        ("7E", 7 * 10**18), ("10e-3", "0.01"), ("10e3", 10_000), ("1e3", 1000), ("1E3", 1000), ("1e0", 1), ("1e10", 10**10),
        ("100e6", 10**8), (".5", "0.5"), ("5.", 5), ("0.5Ki", 512), ("1.5Gi", 3 * 512 * 1024**2), ("+1", 1), ("-1", -1),
        ("-0.5", "-0.5"), ("12.34", "12.34"), ("100.035k", 100_035), ("1E", 10**18), (8589934592, 8 * 1024**3),
        # Beyond int64 it stays there.
        ("9223372036854775807", MAX), ("10E", MAX), ("9223372036854775807Ki", MAX), ("1e999999999", MAX), ("-1e999999999", -MAX),
        ("1e-999999999", "1e-100"),
    ],
)  # fmt: skip
def test_parses_what_kubernetes_parses(text: str | int, value: str | int) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", " 1", "1\n", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-", "1e", "1K", "1ki",
     "Gi", "1GiB", "0x10", "1_000", "1,5", "٣", "--1", "+-1", "e3", "nan", "inf"],
)  # fmt: skip
def test_refuses_what_kubernetes_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("8Gi", 8 * 2**30), ("1500m", 2), ("1", 1), ("0", 0), ("0.1", 1), ("1e3", 1000), ("500M", 500_000_000)],
)
def test_bytes_round_up(text: str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


def test_bytes_are_never_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        parse_bytes("-1")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (1, "1"),
        (2**20 - 1, "1048575"),
        (2**20, "1Mi"),
        (1536 * 2**20, "1536Mi"),
        (8 * 2**30, "8192Mi"),
        (2**20 * 3 // 2, "2Mi"),
    ],
)
def test_formats_for_people(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(st.integers(min_value=2**20, max_value=2**62))
def test_formatting_loses_at_most_half_a_mebibyte(size_bytes: int) -> None:
    assert abs(parse_bytes(format_bytes(size_bytes)) - size_bytes) <= 2**19


@given(st.text(alphabet="0123456789.+-eEKMGTPinumk", max_size=12))
def test_reading_never_fails_in_another_way(text: str) -> None:
    try:
        value = parse_quantity(text)
    except ValueError:
        return
    assert -MAX <= value <= MAX


@pytest.mark.parametrize(("given_value", "kept"), [("8Gi", "8Gi"), (5, "5"), (0, "0"), ("100m", "100m")])
def test_a_field_keeps_the_text(given_value: str | int, kept: str) -> None:
    assert TypeAdapter(Quantity).validate_python(given_value) == kept


@pytest.mark.parametrize("value", [True, 0.5, None, "-1", -1, "much", [], {}])
def test_a_field_refuses(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Quantity).validate_python(value)
