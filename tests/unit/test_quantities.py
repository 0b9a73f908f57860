"""Times and amounts of memory as people type and read them."""

from __future__ import annotations

import pytest

from tstitch_cli.errors import UsageError
from tstitch_cli.quantities import (
    parse_budget,
    parse_bytes,
    parse_duration,
    parse_named_times,
    parse_share,
    shown_bytes,
    shown_s,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2.5s", 2.5),
        ("2.5", 2.5),
        (" 2.5 S ", 2.5),
        ("800ms", 0.8),
        ("800 ms", 0.8),
        ("1m30s", 90),
        ("1m 30s", 90),
        ("2min", 120),
        ("1h", 3600),
        ("1e-3", 0.001),
        (".5s", 0.5),
        ("1s500ms", 1.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_budget(text).seconds(16.5) == pytest.approx(seconds)
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"), [("60%", 9.9), ("1.5x", 11.0), ("100%", 16.5), ("2×", 8.25), ("150 %", 24.75)]
)
def test_shares_and_speed_ups_are_of_the_largest_alone(text: str, seconds: float) -> None:
    assert parse_budget(text).seconds(16.5) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["0", "0s", "-1", "-2.5s", "-5%", "0%", "0x", "nan", "inf", "-inf", "", " ", "s", "%", "x", "fast", "1,5s", "2.5ss",
     "30s1m", "5s5s", "1e7", "2e6s", "1e999", "1e999s", "2000x", "0.0001x", "1e-9%", "200000%", "0x10", "１s", "1 2",
     "1.5x2", "\x00", "9" * 400],
)  # fmt: skip
def test_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_budget(text)
    assert "1.5x" in str(caught.value.hint)
    assert "2.5s" in str(caught.value.hint)
    assert len(caught.value.message) < 200


def test_a_duration_is_no_share() -> None:
    for text in ("60%", "1.5x"):
        with pytest.raises(UsageError):
            parse_duration(text)


def test_named_times() -> None:
    pairs = ["dit-s=1.6s", "a=b=800ms", "dit-xl = 16.5"]
    assert parse_named_times(pairs) == {"dit-s": 1.6, "a=b": 0.8, "dit-xl": 16.5}


@pytest.mark.parametrize(
    "pairs",
    [["dit-s"], ["=1s"], ["dit-s="], ["dit-s=fast"], ["a=1s", "a=2s"], ["a\nb=1s"], ["a=60%"], ["x" * 200 + "=1s"]],
)
def test_malformed_named_times(pairs: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_named_times(pairs)


def test_share() -> None:
    assert parse_share("1%") == pytest.approx(0.01)
    assert parse_share("0.02") == pytest.approx(0.02)
    for text in ("0", "200%", "1.5x", "-1%", "nan", ""):
        with pytest.raises(UsageError):
            parse_share(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(16.5, "16.5 s"), (8.247, "8.247 s"), (1.0, "1 s"), (0.5, "500 ms"), (0.0123456, "12.35 ms"),
     (1234.5678, "1235 s"), (100.0, "100 s"), (0.0, "0 ms"), (0.99996, "1 s")],
)  # fmt: skip
def test_times_for_people(value: float, shown: str) -> None:
    assert shown_s(value) == shown


@pytest.mark.parametrize("value", [1.00001, 0.123456789, 12.3401, 1.0, 987.65, 54321.2])
def test_rounded_up_is_enough(value: float) -> None:
    assert parse_duration(shown_s(value, up=True)) >= value * (1 - 1e-11)
    assert parse_duration(shown_s(value, up=True)) <= value * 1.001


@pytest.mark.parametrize(
    ("text", "size"),
    [("6GB", 6 * 10**9), ("6 gb", 6 * 10**9), ("5.5GiB", 5_905_580_032), ("6144M", 6_144_000_000), (".5g", 5 * 10**8)],
)
def test_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "6", "GB", "-6GB", "6GBs", "1kB", "0GB", "1e9TB", "inf GB", "six GB", "6 G B"])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(UsageError, match="no sensible amount of memory"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "shown"), [(6e9, "6.00 GB"), (1.719e9, "1.72 GB"), (450e6, "450 MB"), (2e3, "2 kB"), (123.4e9, "123 GB")]
)
def test_memory_for_people(size: float, shown: str) -> None:
    assert shown_bytes(size) == shown
