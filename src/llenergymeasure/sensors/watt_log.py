"""The log of a power meter: lines of a time and a power, by the meter's own clock.

Times are ISO 8601 (without a zone: this machine's own) or seconds since 1970. A heading names the
columns, else they are the first two.
"""

import csv
import math
import re
import time
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

MAX_BYTES = 64 << 20
"""Of a log, its end is read: a month of seconds."""

_TIME = re.compile(r"time|date|^t$|^t_s$|epoch", re.IGNORECASE)
_POWER = re.compile(
    r"^(?!.*(?:factor(?!y)|apparent|reactive|limit(?!er)|kilo|milli"
    r"|(?:[km]w|(?:watts?|w)[ _-]?h(?:ours?)?|(?<![a-z])k?var?)(?![a-z])))"
    r".*(?:watt|power|^p$|^w$|_w$)",
    re.IGNORECASE,
)
"""Of other units and of other powers is none of watts drawn."""


class LoggedPower(NamedTuple):
    """One line: when, in s since 1970 by the meter's clock, and the power in W."""

    at_s: float
    watts: float


class Columns(NamedTuple):
    """Which columns hold the time and the power."""

    time: int = 0
    power: int = 1


def columns_of(heading: str) -> Columns | None:
    """Return the columns that a heading names; None if the line is none.

    Raises:
        ValueError: it is one, and names no time or no power.
    """
    cells = next(csv.reader([heading]), [])
    if heading.startswith("#") or any(map(_is_number, cells)) or not cells:
        return None
    places = [
        next((place for place, cell in enumerate(cells) if pattern.search(cell.strip())), None)
        for pattern in (_TIME, _POWER)
    ]
    if None in places:
        raise ValueError(f"its heading {heading.strip()[:80]!r} names no column of times and watts")
    return Columns(*(place or 0 for place in places))


def parse_line(line: str, columns: Columns) -> LoggedPower | None:
    """Return what a line says; None for one that says nothing (empty, a comment, cut short)."""
    cells = next(csv.reader([line]), [])
    if line.startswith("#") or len(cells) <= max(columns):
        return None
    try:
        power = LoggedPower(_moment(cells[columns.time].strip()), float(cells[columns.power]))
    except (ValueError, OverflowError):
        return None
    return power if all(map(math.isfinite, power)) and power.watts >= 0 else None


def parse_log(lines: Sequence[str]) -> list[LoggedPower]:
    """Return what the lines of a log say, in the order of time.

    Raises:
        ValueError: they are no log.
    """
    columns = (columns_of(lines[0]) if lines else None) or Columns()
    parsed = [parse_line(line, columns) for line in lines]
    powers = sorted(power for power in parsed if power is not None)
    if not powers:
        raise ValueError("it has no line of a time and a power in W")
    return powers


def monotonic_ns(at_s: float) -> int:
    """Return a moment of the wall clock as CLOCK_MONOTONIC in ns, by how both stand now."""
    return time.monotonic_ns() + round((at_s - time.time()) * 1e9)


def _moment(text: str) -> float:
    return float(text) if _is_number(text) else datetime.fromisoformat(text).timestamp()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
