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
    r"|(?<![a-z])(?:m(?:in|ax)(?:imum)?|peak|cycles?|stat(?:e|us)|on)(?![a-z])"
    r"|(?:[km]w|(?:watts?|w)[ _-]?h(?:ours?)?|(?<![a-z])k?var?)(?![a-z])))"
    r".*(?:watt|power|^p$|^w$|_w$)",
    re.IGNORECASE,
)
"""Of other units and of other powers is none of watts drawn."""

NO_LINE = "no line of a time (ISO 8601, or seconds since 1970) and a power in W"

_LATEST_S = 1e11
"""A number above this counts milliseconds or finer."""
_DATE_LENGTH = len("2026-11-29")


class LoggedPower(NamedTuple):
    """One line: when, in s since 1970 by the meter's clock, and the power in W."""

    at_s: float
    watts: float


class Columns(NamedTuple):
    """Which columns hold the time and the power."""

    time: int = 0
    power: int = 1


def parse_heading(heading: str) -> Columns | None:
    """Return the columns that a heading names; None if the line is none.

    Raises:
        ValueError: it is one, and names no time, no power or several.
    """
    cells = next(csv.reader([heading]), [])
    if heading.startswith("#") or any(map(_is_number, cells)) or not cells:
        return None
    times, powers = (
        [place for place, cell in enumerate(cells) if pattern.search(cell.strip())]
        for pattern in (_TIME, _POWER)
    )
    if not times or not powers:
        raise ValueError(f"its heading {heading.strip()[:80]!r} names no column of times and watts")
    if len(powers) > 1:
        names = ", ".join(cells[place].strip() for place in powers)[:80]
        raise ValueError(f"its heading names several powers ({names}): keep one column of watts")
    return Columns(times[0], powers[0])


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
    columns = (parse_heading(lines[0]) if lines else None) or Columns()
    parsed = [parse_line(line, columns) for line in lines]
    powers = sorted(power for power in parsed if power is not None)
    if not powers:
        raise ValueError(f"it has {NO_LINE}")
    return powers


def monotonic_ns(at_s: float) -> int:
    """Return a moment of the wall clock as CLOCK_MONOTONIC in ns, by how both stand now."""
    return time.monotonic_ns() + round((at_s - time.time()) * 1e9)


def _moment(text: str) -> float:
    if not _is_number(text):
        if len(text) <= _DATE_LENGTH:
            raise ValueError("a date without a time")
        return datetime.fromisoformat(text).timestamp()
    at_s = float(text)
    if at_s > _LATEST_S:
        raise ValueError("not in seconds")
    return at_s


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
