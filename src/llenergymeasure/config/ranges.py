"""The short ways to write a list of numbers in a sweep."""

import math
from collections.abc import Mapping
from typing import Any

MAX_VALUES = 10_000

RANGE_FORMS = "{min, max, num}, {log: {min, max, num}} or {pow2: {min, max}}"


class RangeError(ValueError):
    """A range that cannot be used; the message says what would do."""


def expand(value: Mapping[str, Any], integers: bool) -> list[int | float]:
    """Return the numbers that a range stands for, rising, each once.

    ``{min, max, num}`` gives num evenly spaced numbers with both ends, ``{log: …}`` the same on a
    logarithmic scale, and ``{pow2: {min, max}}`` the powers of two from min to max.

    Args:
        value: the range as written.
        integers: whether the setting takes whole numbers only; the numbers are rounded then.

    Raises:
        RangeError: the range is incomplete, empty or too long.
    """
    if set(value) == {"log"}:
        low, high, num = _bounds(value["log"], "log")
        if low <= 0:
            raise RangeError("log needs a min above 0")
        logs = _linspace(math.log(low), math.log(high), num)
        numbers = [low, *(math.exp(x) for x in logs[1:-1]), high] if num > 1 else [low]
    elif set(value) == {"pow2"}:
        return _powers_of_two(value["pow2"])
    else:
        low, high, num = _bounds(value, None)
        numbers = _linspace(low, high, num)
    if integers:
        return list(dict.fromkeys(round(number) for number in numbers))
    # Twelve digits: 0.1 steps must give 0.3, not 0.30000000000000004.
    return list(dict.fromkeys(_int_if_integral(float(f"{number:.12g}")) for number in numbers))


def _bounds(value: Any, name: str | None) -> tuple[float, float, int]:
    if not isinstance(value, Mapping) or set(value) != {"min", "max", "num"}:
        raise RangeError(f"{name or 'a range'} needs min, max and num: use {RANGE_FORMS}")
    low, high = _number(value, "min"), _number(value, "max")
    num = value["num"]
    if not isinstance(num, int) or isinstance(num, bool) or not 1 <= num <= MAX_VALUES:
        raise RangeError(f"num must be a whole number, at least 1 and at most {MAX_VALUES}")
    if low > high:
        raise RangeError("min must not be above max")
    if num == 1 and low != high:
        raise RangeError("num 1 cannot hold both min and max; use at least 2")
    return low, high, num


def _powers_of_two(value: Any) -> list[int | float]:
    if not isinstance(value, Mapping) or set(value) != {"min", "max"}:
        raise RangeError("pow2 needs min and max, and nothing else")
    low, high = _number(value, "min"), _number(value, "max")
    if low < 1 or high > 2**62:
        raise RangeError("pow2 needs a min of at least 1 and a max of at most 2^62")
    numbers: list[int | float] = [2**power for power in range(63) if low <= 2**power <= high]
    if not numbers:
        raise RangeError(f"there is no power of two from {value['min']} to {value['max']}")
    return numbers


def _number(value: Mapping[str, Any], name: str) -> float:
    number = value[name]
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise RangeError(f"{name} must be a number")
    if not math.isfinite(number) or abs(number) > 1e18:
        raise RangeError(f"{name} must be a finite number below 1e18")
    return number


def _linspace(low: float, high: float, num: int) -> list[float]:
    if num == 1:
        return [low]
    return [low + (high - low) * index / (num - 1) for index in range(num)]


def _int_if_integral(number: float) -> int | float:
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
