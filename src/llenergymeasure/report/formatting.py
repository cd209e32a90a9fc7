"""Numbers and texts as a person reads them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llenergymeasure.screen import INVISIBLE
from llenergymeasure.units import NO_VALUE, percent

MeanInterval: TypeAlias = tuple[float | None, float | None, float | None]
"""A mean and its interval's ends."""

NOISE_REL = 1e-6
"""A half width below this share of the value comes from rounding, not from a sensor."""

_PREFIXES = ((6, "M"), (3, "k"), (0, ""), (-3, "m"), (-6, "µ"), (-9, "n"))
PREFIXED = frozenset({"J", "W", "s"})
SCOPE_WORDS = {
    "gpu": "GPU",
    "cpu": "CPU",
    "dram": "memory",
    "module": "module",
    "host": "whole host",
    "node": "whole node",
}


@dataclass(frozen=True)
class Scale:
    """One unit for a whole column or axis.

    Attributes:
        factor: what a value in the base unit is multiplied by.
        unit: the unit it is then in, such as ``mJ``.
    """

    factor: float
    unit: str

    def __call__(self, value: float) -> float:
        """Return a value of the base unit in this one."""
        return value * self.factor

    def interval(self, row: Mapping[str, Any], metric: str) -> MeanInterval:
        """Return the mean of a quantity and its interval's ends in this unit, each None if unknown.

        Args:
            row: of the summary.
            metric: the quantity.
        """
        mean, low, high = (
            None if value is None else self(value)
            for value in (row[f"{metric}_{part}"] for part in ("mean", "ci95_low", "ci95_high"))
        )
        return mean, low, high


AS_IS = Scale(1.0, "")


def scale_for(values: Iterable[float | None], unit: str) -> Scale:
    """Return the prefix with which the largest of ``values`` is between 1 and 1000.

    Units that are not in :data:`PREFIXED`, such as tokens/s, get none.
    """
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest == 0 or unit not in PREFIXED:
        return Scale(1.0, unit)
    for exponent, prefix in _PREFIXES:
        if largest >= 10.0**exponent:
            return Scale(10.0**-exponent, prefix + unit)
    exponent, prefix = _PREFIXES[-1]
    return Scale(10.0**-exponent, prefix + unit)


def rounded(value: float | None) -> str:
    """Return a number without an interval, with three significant digits; None gives a dash."""
    return NO_VALUE if value is None else f"{value:,.{_decimals(value)}f}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return a value and how far its interval reaches: ``51 ± 2``, or ``51 +2.4 -1.9``.

    Intervals on the logarithm reach further up than down: if the digits show that, both distances
    are given. The value is alone if it has no interval, or one that is only rounding.
    """
    if value is None or low is None or high is None:
        return rounded(value)
    half_width = (high - low) / 2
    if half_width <= NOISE_REL * abs(value):
        return rounded(value)
    decimals = _decimals(value, half_width)
    above, below = (_nonzero_text(reach, decimals) for reach in (high - value, value - low))
    reach = f"± {above}" if above == below else f"+{above} -{below}"
    return f"{mean_text(value, low, high)} {reach}"


def mean_text(mean: float | None, low: float | None, high: float | None) -> str:
    """Return a mean with the digits that its interval justifies, without the interval."""
    if mean is None or low is None or high is None:
        return rounded(mean)
    return _nonzero_text(mean, _decimals(mean, (high - low) / 2))


def rounded_range(low: float | None, high: float | None) -> str:
    """Return an interval as ``low to high``, both with the same digits.

    An end that is not 0 is never rounded to 0: that would claim more than the interval does.
    """
    if low is None or high is None:
        return NO_VALUE
    decimals = _decimals(high, (high - low) / 2)
    return f"{_nonzero_text(low, decimals)} to {_nonzero_text(high, decimals)}"


def change(ratio: float) -> str:
    """Return a ratio as its saving or addition: ``9 % less``, ``12 % more``, ``2.5 times``."""
    if ratio >= 2:
        return f"{ratio:.2g} times" if ratio < 99.5 else f"{ratio:,.0f} times"
    return f"{percent(abs(ratio - 1))} {'less' if ratio < 1 else 'more'}"


def change_range(low: float, high: float) -> str:
    """Return an interval of ratios: ``9 % to 15 % less``, ``3 % less to 2 % more``."""
    nearer, farther = (high, low) if high <= 1 else (low, high)
    first, last = change(nearer), change(farther)
    word = f" {last.rpartition(' ')[2]}"
    return f"{first.removesuffix(word)} to {last}"


def p_value(p: float | None) -> str:
    """Return a p value with two digits, more next to 0.05, and a small one as ``< 0.001``."""
    if p is None:
        return NO_VALUE
    return "< 0.001" if p < 0.001 else f"{p:.{4 if 0.045 <= p < 0.055 else 2}g}"


def shortened(text: object, limit: int) -> str:
    """Return plain text shortened in its middle, as names that begin alike differ at their ends."""
    line = plain(text)
    if len(line) <= limit:
        return line
    tail = limit // 2
    return f"{line[: limit - tail - 3]}...{line[-tail:]}"


def plain(text: object, limit: int | None = None) -> str:
    """Return text on one line, without characters that steer a terminal or a page.

    Control characters, the ESC of escape sequences, direction overrides, line separators and
    invisible characters become spaces; several blanks become one. ``limit`` cuts to that many
    characters.
    """
    visible = INVISIBLE.sub(" ", str(text))
    printable = "".join(sign if sign.isprintable() else " " for sign in visible)
    line = " ".join(printable.split())
    return line if limit is None or len(line) <= limit else f"{line[: limit - 3]}..."


def count_text(number: int, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun: ``1 run``, ``2 runs``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def setting_text(value: object, limit: int = 30, absent: str = "not set") -> str:
    """Return a setting's value as a text of limited length."""
    if value is None:
        return absent
    if isinstance(value, bool):
        return str(value).lower()  # as the study file and its labels have it
    return f"{value:g}" if isinstance(value, float) else shortened(value, limit)


def setting_texts(
    values: Iterable[Any], limit: int = 30, absent: str = "not set"
) -> dict[Any, str]:
    """Return the text of each value of a setting; in full if two shortened ones would be equal."""
    texts = {value: setting_text(value, limit, absent) for value in values}
    counts = Counter(texts.values())
    return {value: text if counts[text] == 1 else plain(value) for value, text in texts.items()}


def join_words(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def scopes_text(scopes: Sequence[str] | None) -> str:
    """Return what energy covers, in words."""
    return join_words([SCOPE_WORDS.get(scope, scope) for scope in scopes or ()]) or "unknown scope"


def _nonzero_text(value: float, decimals: int) -> str:
    """Return a number with a fixed number of decimals, or its first digit if those are all 0."""
    if value and abs(value) < 0.5 * 10.0**-decimals:
        decimals = min(-math.floor(math.log10(abs(value))), 9)
    return f"{value:,.{decimals}f}"


def _decimals(value: float, half_width: float = 0.0) -> int:
    """Return the decimals that an interval justifies, two digits of its half width."""
    if half_width > NOISE_REL * abs(value):
        leading = math.floor(math.log10(half_width))
        return min(max(1 - leading, 0), 9)
    if value == 0:
        return 0
    return min(max(2 - math.floor(math.log10(abs(value))), 0), 9)
