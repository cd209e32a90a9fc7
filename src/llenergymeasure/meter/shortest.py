"""How long a window has to be for an asked precision, before it is measured and after.

The ends of a window cost the same energy however long it is; and so many update periods must fit
in that one more or less does not matter.
"""

import math
from dataclasses import dataclass

from llenergymeasure.meter.characterise import (
    POWER_QUANTITIES,
    Character,
    PowerCharacter,
    published,
)
from llenergymeasure.meter.characters import load_known
from llenergymeasure.meter.device import DISAGREEMENT, UNSEEN, DeviceChannels, Stretch
from llenergymeasure.meter.samples import SensorInfo
from llenergymeasure.units import NS_PER_S

SHORTEST_PERIODS = 10
"""Fewest update periods a window needs."""

_TWO_BOUNDS = 1.6
"""Half width of the 95 % interval of two effects bounded by 1 each: 1.96 times the root of 2/3."""

_LEAST_DRAWN = 0.1
"""Rest over limit of a card of which nothing was seen."""


def short_window(
    stretch: Stretch, channels: DeviceChannels, window: tuple[int, int], precision: float
) -> str | None:
    """Return whether the window is too short for an asked precision, and how long it had to be."""
    span_s = (window[1] - window[0]) / NS_PER_S
    needed_s = shortest_window_s(stretch, channels, span_s, precision)
    if span_s >= needed_s:
        return None
    return (
        f"{channels.info.device}: the window of {span_s:.2f} s is shorter than the "
        f"{needed_s:.1f} s needed for {precision:.1%} with this sensor"
    )


def shortest_window_s(
    stretch: Stretch, channels: DeviceChannels, span_s: float, precision: float
) -> float:
    """Return the shortest window that would have brought its ends' share to a precision."""
    ends_j = stretch.without(UNSEEN, DISAGREEMENT)
    mean_w = stretch.energy_j / span_s
    for_ends_s = ends_j / (precision * mean_w) if mean_w > 0 else 0.0
    character = channels.character
    if channels.counter is not None:
        periods_s = [character.counter_period_s]
    else:
        periods_s = [part.update_period_s for part in character.power]
    known_s = [period_s for period_s in periods_s if period_s is not None]
    return max(for_ends_s, SHORTEST_PERIODS * max(known_s, default=0.0))


@dataclass(frozen=True)
class Resolution:
    """What a card's sensor can resolve of a window, whatever the load draws.

    Attributes:
        ends_s: error of both ends together, as a time at the mean power.
        least_s: so many update periods that one more or less does not matter.
    """

    ends_s: float
    least_s: float

    def window_s(self, precision: float) -> float:
        """Return the shortest window that reaches a relative precision."""
        return max(self.ends_s / precision, self.least_s)


def expected_resolution(
    info: SensorInfo, character: Character, powers_w: tuple[float, float] | None = None
) -> Resolution | None:
    """Return what a card's sensor will resolve; null if that is not known.

    A counter that counts for itself is cut at its ticks, so only its period counts. Else each end
    lies somewhere between two readings, or within the time they are means over, and the load may
    draw what makes that worst: the root of rest times limit.

    Args:
        info: the card's sensor.
        character: how its channels behave.
        powers_w: between which powers the card stays; null: from a tenth of its limit to that.
    """
    counts = "energy_counter_j" in info.quantities and character.counter_independent is not False
    if counts:
        period_s = character.counter_period_s
        return None if period_s is None else Resolution(0.0, SHORTEST_PERIODS * period_s)
    seen = [each for each in (_of_power(part) for part in character.power) if each is not None]
    if not seen:
        return None
    _, unsure_s, period_s = max(seen)
    low_w, high_w = powers_w or (_LEAST_DRAWN, 1.0)
    low, high = math.sqrt(max(low_w, 0.0)), math.sqrt(max(high_w, low_w, 1e-9))
    worst = (high - low) / (high + low)
    return Resolution(_TWO_BOUNDS * worst * unsure_s, SHORTEST_PERIODS * period_s)


def known_resolution(info: SensorInfo) -> Resolution | None:
    """Return what a card's sensor will resolve by what is kept or published of it."""
    if info.unavailable is not None:
        return None
    known = load_known([info]).get((info.sensor, info.device))
    if known is not None:
        return expected_resolution(info, known.character, (known.low_w, known.high_w))
    character = published_character(info)
    return None if character is None else expected_resolution(info, character)


def published_character(info: SensorInfo) -> Character | None:
    """Return what others have published of a card's channels, if anything."""
    parts = [published(info.name, each) for each in POWER_QUANTITIES if each in info.quantities]
    found = tuple(part for part in parts if part is not None)
    return Character(None, None, 1.0, 0.0, found) if found else None


def _of_power(part: PowerCharacter) -> tuple[float, float, float] | None:
    """Return the share seen, how unsure in s an end is, and the period; null if not known."""
    share, period_s, window_s = part.share_seen, part.update_period_s, part.window_s
    if share is None or period_s is None or window_s is None:
        return None
    smear_s = window_s / 2 if share == 1.0 else 0.0
    return share, smear_s + period_s / 2, period_s
