"""The short ways to write a list of numbers in a sweep."""

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from llenergymeasure.config.section import Section

MAX_VALUES = 10_000


class Ends(Section):
    """Where a range begins and ends."""

    min: float = Field(ge=-1e18, le=1e18)
    max: float = Field(ge=-1e18, le=1e18)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.min > self.max:
            raise ValueError("min must not be above max")
        return self


class Spaced(Ends):
    """Evenly spaced numbers, both ends included."""

    num: int = Field(ge=1, le=MAX_VALUES)

    @model_validator(mode="after")
    def _holds_both_ends(self) -> Self:
        if self.num == 1 and self.min != self.max:
            raise ValueError("num 1 cannot hold both min and max; use at least 2")
        return self


class Log(Section):
    """Numbers that are evenly spaced on a logarithmic scale, both ends included."""

    log: Spaced

    @model_validator(mode="after")
    def _is_positive(self) -> Self:
        if self.log.min <= 0:
            raise ValueError("log needs a min above 0")
        return self


class Pow2(Section):
    """The powers of two from min to max."""

    pow2: Ends

    @model_validator(mode="after")
    def _holds_one(self) -> Self:
        if not self.numbers():
            ends = f"from {self.pow2.min:g} to {self.pow2.max:g}"
            raise ValueError(f"there is no power of two {ends}")
        return self

    def numbers(self) -> list[int | float]:
        """Return the powers, up to 2^62."""
        return [2**each for each in range(63) if self.pow2.min <= 2**each <= self.pow2.max]


Range = Spaced | Log | Pow2


def form_of(value: Mapping[str, Any]) -> type[Range]:
    """Return the form in which a range is written."""
    return Log if "log" in value else Pow2 if "pow2" in value else Spaced


def expand(value: Mapping[str, Any], whole: bool) -> list[int | float]:
    """Return the numbers that a range stands for, rising, each once.

    Args:
        value: the range as written.
        whole: whether the setting takes whole numbers only; the numbers are rounded then.

    Raises:
        ValidationError: the range is incomplete, empty or too long.
    """
    written = form_of(value).model_validate(value)
    if isinstance(written, Pow2):
        return written.numbers()
    if isinstance(written, Log):
        low, high, num = written.log.min, written.log.max, written.log.num
        logs = _spaced(math.log(low), math.log(high), num)
        numbers = [low, *(math.exp(x) for x in logs[1:-1]), high] if num > 1 else [low]
    else:
        numbers = _spaced(written.min, written.max, written.num)
    if whole:
        return list(dict.fromkeys(round(number) for number in numbers))
    # Twelve digits: 0.1 steps must give 0.3, not 0.30000000000000004.
    return list(dict.fromkeys(_short(float(f"{number:.12g}")) for number in numbers))


def _spaced(low: float, high: float, num: int) -> list[float]:
    if num == 1:
        return [low]
    return [low + (high - low) * place / (num - 1) for place in range(num)]


def _short(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
