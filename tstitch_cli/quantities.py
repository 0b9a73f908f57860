"""What people type and read: for a time `2.5s`, `800ms`, `1m30s`, `60%`, `1.5x`, `name=1.6s`; for memory `6GB`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Literal

from tstitch_cli.errors import UsageError

MAX_SECONDS = 1e6
MAX_TIMES = 1000.0
MAX_NAME = 100
DURATIONS = "2.5s, 800ms, 2.5 or 1m30s"
FORMS = f"{DURATIONS}; 60% (of the largest denoiser alone) or 1.5x (times faster than it)"

_DIGITS = r"(\d+(?:\.\d*)?|\.\d+)(e[-+]?\d{1,3})?"
_SECONDS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "sec": 1.0, "ms": 1e-3}
_RANK = {"h": 0, "min": 1, "m": 1, "s": 2, "sec": 2, "ms": 3}
_PART = re.compile(rf"{_DIGITS}\s*(min|ms|sec|h|m|s)\s*", re.ASCII)
_BARE = re.compile(rf"{_DIGITS}\s*([%x×]?)", re.ASCII)


@dataclass(frozen=True)
class Quantity:
    """A budget as it was typed: seconds, a share of the largest denoiser alone, or a speed-up over it."""

    asked: str
    value: float
    kind: Literal["seconds", "share", "speed-up"]

    def seconds(self, largest_alone_s: float) -> float:
        """The budget in seconds, given those of a call with the largest denoiser alone."""
        if self.kind == "seconds":
            return self.value
        return largest_alone_s * self.value if self.kind == "share" else largest_alone_s / self.value


def parse_budget(text: str) -> Quantity:
    """Reads a budget; raises UsageError, with the accepted forms, for anything but a sensible one above 0."""
    asked = text.strip()
    bare = _BARE.fullmatch(asked.lower())
    if bare is None or not bare[3]:
        return Quantity(asked, parse_duration(text, forms=FORMS), "seconds")
    number = _sensible(_number(bare), asked, FORMS)
    value = number / 100 if bare[3] == "%" else number
    if not 1 / MAX_TIMES <= value <= MAX_TIMES:
        raise _refusal(asked, f"is absurd: it must be between 1/{MAX_TIMES:g} and {MAX_TIMES:g} times", FORMS)
    return Quantity(asked, value, "share" if bare[3] == "%" else "speed-up")


def parse_duration(text: str, *, forms: str = DURATIONS) -> float:
    """Reads a duration in seconds; raises UsageError, with the accepted forms, unless it is above 0 and sensible."""
    asked = text.strip()
    lower = asked.lower()
    bare = _BARE.fullmatch(lower)
    if bare is not None and not bare[3]:
        return _at_most(_sensible(_number(bare), asked, forms), asked, forms)
    total, position, rank = 0.0, 0, -1
    while position < len(lower) or rank < 0:
        part = _PART.match(lower, position)
        # Units come largest first and once each, so that 30s1m and 5s5s are seen to be mistakes.
        if part is None or _RANK[part[3]] <= rank:
            negative = re.match(r"[-−]\s*[.\d]", lower)
            raise _refusal(asked, "must be above 0" if negative else "is not understood", forms)
        total += _number(part) * _SECONDS[part[3]]
        position, rank = part.end(), _RANK[part[3]]
    return _at_most(_sensible(total, asked, forms), asked, forms)


def parse_named_times(pairs: Iterable[str]) -> dict[str, float]:
    """Reads `name=1.6s` pairs into name -> seconds; raises UsageError for a malformed or repeated one."""
    times: dict[str, float] = {}
    for pair in pairs:
        name, equals, duration = pair.rpartition("=")
        name = name.strip()
        if not equals or not name or not name.isprintable() or len(name) > MAX_NAME:
            raise UsageError(f"{pair[:60]!r} is not a denoiser and its time", hint="write it as dit-s=1.6s")
        if name in times:
            raise UsageError(f"{name} is given twice", hint="give each denoiser one time")
        times[name] = parse_duration(duration)
    return times


def parse_counts(text: str, what: str) -> tuple[int, ...]:
    """Reads `20` or `10,20,50`, each once, in the order given; raises UsageError for all but whole numbers above 0."""
    parts = [part.strip() for part in text.split(",")]
    counts = tuple(int(part) if re.fullmatch(r"[0-9]{1,6}", part) else 0 for part in parts)
    if min(counts) < 1:
        raise UsageError(f"{what}: {text.strip()[:40]!r} is no whole number above 0", hint="write it as 20 or 10,20,50")
    return tuple(dict.fromkeys(counts))


def parse_share(text: str) -> float:
    """Reads `1%` or `0.01` as a share; raises UsageError unless it is above 0 and at most 1."""
    bare = _BARE.fullmatch(text.strip().lower())
    share = _number(bare) / (100 if bare[3] == "%" else 1) if bare and bare[3] in ("", "%") else 0.0
    if not 0 < share <= 1:
        raise UsageError(f"{text.strip()[:40]!r} is not a share above 0 and at most 1", hint="write it as 1% or 0.01")
    return share


def shown_s(value: float, *, up: bool = False) -> str:
    """A time for people, with four digits; rounded `up` where a budget of what is shown must be enough."""
    unit, value = ("s", value) if value >= 0.9995 else ("ms", value * 1e3)
    decimals = 3 - floor(log10(value)) if value > 0 else 0
    # The last digits of a float are noise, which must not be rounded up.
    value = ceil(value * 10.0**decimals * (1 - 1e-12)) / 10.0**decimals if up else round(value, decimals)
    digits = f"{value:.{max(0, decimals)}f}"
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {unit}"


def parse_bytes(text: str) -> int:
    """Reads an amount of memory such as `6GB`, `6144 MB` or `5.5GiB`; raises UsageError unless 1 MB to 1,000 TB."""
    part = re.fullmatch(rf"{_DIGITS}\s*([kmgt])(i?)b?", text.strip().lower(), re.ASCII)
    size = 0.0
    if part is not None:
        size = _number(part) * (1024 if part[4] else 1000) ** ("kmgt".index(part[3]) + 1)
    if not 1e6 <= size <= 1e15:
        raise UsageError(f"{text.strip()[:40]!r} is no sensible amount of memory", hint="write it as 6GB or 6144MiB")
    return int(size)


def shown_bytes(value: float) -> str:
    """An amount of memory for people, with three digits, in the units that people buy it in."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{value / 1e3:.0f} kB"


def _number(match: re.Match[str]) -> float:
    return float(match[1] + (match[2] or ""))


def _sensible(value: float, asked: str, forms: str) -> float:
    if value <= 0:
        raise _refusal(asked, "must be above 0", forms)
    return value


def _at_most(seconds: float, asked: str, forms: str) -> float:
    if seconds > MAX_SECONDS:
        raise _refusal(asked, f"is absurd: it is above {MAX_SECONDS:,.0f} s", forms)
    return seconds


def _refusal(asked: str, what: str, forms: str) -> UsageError:
    shown = asked if len(asked) <= 40 else asked[:37] + "..."
    return UsageError(f"the time {shown!r} {what}", hint=f"write it as {forms}")
