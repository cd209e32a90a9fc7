"""A card held against an external meter: gain and offset of its sensor, and how sure they are.

The meter is late and slow, the card is not: what the card's counter says is averaged as the meter
does it. Compared are levels alone, stretches over which the card's power stayed the same for longer
than the meter can blur, so that no error of the lag is in the result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llenergymeasure.energy.channel import Channel
from llenergymeasure.energy.knots import Floats, Knots, Readings, power_knots
from llenergymeasure.energy.node_energy import Alignment, NotAlignedError, align
from llenergymeasure.errors import MeterError

_MIN_EXPLAINED = 0.9
"""Least share of the meter's variance that the card must explain."""
_STEADY_SHARE = 0.03
"""A card whose power varies by less than this share of its range is at a level."""
_MIN_LEVELS = 6
_MIN_RANGE = 0.3
"""Least range of the levels, over the highest, that distinguishes a gain from an offset."""
_MAX_INTERCEPT_W = 40.0
"""A meter that sees so much more or less than a card is not on the card alone."""
_NOTED_INTERCEPT_W = 5.0
"""A difference that is more than most sensors' offset: it may be a fan's."""
_GAP_SPACINGS = 1.5
_SLOW_SPACING_S = 5.0


@dataclass(frozen=True)
class MeterSetup:
    """What the user knows of the meter.

    Attributes:
        accuracy: half width at 95 % of its own gain, relative.
        rest_w: power that it sees in addition to the card; None: it is on the card alone.
        efficiency: of the supply between meter and card.
    """

    accuracy: float = 0.01
    rest_w: float | None = None
    efficiency: float = 1.0


@dataclass(frozen=True)
class MeterComparison:
    """A card's sensor against a meter: indicated = gain · true + offset.

    Attributes:
        gain: indicated over true.
        u_gain_rel: half width at 95 %, relative; the meter's own accuracy is in it.
        offset_w: power indicated where none is drawn.
        u_offset_w: half width at 95 %.
        lag: how late the meter is.
        levels: how many levels were compared.
        notes: what a reader should know.
    """

    gain: float
    u_gain_rel: float
    offset_w: float
    u_offset_w: float
    lag: Alignment
    levels: int
    notes: tuple[str, ...]


def compare_with_meter(card: Channel, meter: Readings, setup: MeterSetup) -> MeterComparison:
    """Return a card's gain and offset against a meter's readings.

    Raises:
        MeterError: the two cannot be held against each other; the message says why.
    """
    knots = card.knots
    _check_overlap(knots, meter)
    notes = _gap_notes(meter)
    try:
        lag = align(power_knots(meter), [knots], _MIN_EXPLAINED)
    except NotAlignedError as error:
        slow = meter.spacing_s > _SLOW_SPACING_S
        why = f"; it is slow, updated every {meter.spacing_s:.3g} s" if slow else ""
        raise MeterError(f"the meter cannot be aligned with the card: {error}{why}") from error
    if lag.lag_s < -lag.u95_s:
        notes.append(
            f"the meter's clock is {-lag.lag_s:.2f} s behind at least, which was allowed for"
        )
    card_w, meter_w, counts = _levels(knots, meter, lag)
    if len(card_w) < _MIN_LEVELS or np.ptp(card_w) < _MIN_RANGE * card_w.max():
        raise MeterError(
            f"{len(card_w)} levels of the card are steady for long enough, too few or too alike: "
            f"let the load work and rest in turn, each for over {_settling_s(meter, lag):.0f} s"
        )
    steps_w = np.diff(np.unique(meter.power_w))
    resolution_w = float(steps_w.min()) if len(steps_w) else 0.0
    return _fit(card_w, meter_w, counts, resolution_w, setup, lag, notes)


def _check_overlap(knots: Knots, meter: Readings) -> None:
    start_s = float(meter.t_s[0]) + (meter.origin_ns - knots.origin_ns) / 1e9
    end_s = start_s + float(meter.t_s[-1] - meter.t_s[0])
    early_s, late_s = knots.t_s[0] - end_s, start_s - knots.t_s[-1]
    if early_s > 0 or late_s > 0:
        how = f"begins {late_s:.0f} s after the recording ends"
        if early_s > 0:
            how = f"ends {early_s:.0f} s before the recording begins"
        raise MeterError(
            f"the log {how}: its clock is wrong (a time zone is off by whole hours), or it is of "
            "another time"
        )


def _gap_notes(meter: Readings) -> list[str]:
    spans_s = np.diff(meter.t_s)
    gaps = spans_s > _GAP_SPACINGS * meter.spacing_s
    if not gaps.any():
        return []
    lost_s = float(np.sum(spans_s[gaps] - meter.spacing_s))
    return [f"{lost_s:.0f} s of the log are missing, in {int(gaps.sum())} places; left out"]


def _settling_s(meter: Readings, lag: Alignment) -> float:
    """Return how long the card must have been at a level before a reading shows it alone."""
    return 2 * max(lag.lag_s, 0.0) + lag.u95_s + 2 * meter.spacing_s


def _levels(knots: Knots, meter: Readings, lag: Alignment) -> tuple[Floats, Floats, Floats]:
    """Return the card's and the meter's mean power of each level, and of how many readings."""
    reading_s = meter.t_s + (meter.origin_ns - knots.origin_ns) / 1e9
    # A reading may hold anything since the lag began, and twice: before that, it is settled.
    from_s = reading_s - _settling_s(meter, lag)
    to_s = np.maximum(reading_s, reading_s - lag.lag_s + lag.u95_s)
    inside = (from_s >= knots.t_s[0]) & (to_s <= knots.t_s[-1])
    powers_w, spread_w = knots.power_w, float(np.ptp(_smoothed(knots.power_w)))
    first = np.searchsorted(knots.t_s, from_s)
    last = np.searchsorted(knots.t_s, to_s)
    steady = np.zeros(len(reading_s), dtype=bool)
    for place in np.flatnonzero(inside):
        nearby_w = _smoothed(powers_w[max(first[place] - 1, 0) : last[place] + 1])
        steady[place] = len(nearby_w) > 1 and np.ptp(nearby_w) <= _STEADY_SHARE * spread_w
    groups = np.cumsum(np.concatenate(([True], ~(steady[1:] & steady[:-1]))))
    centre_s = reading_s - lag.lag_s
    half_s = meter.spacing_s / 2
    mean_w = (knots.at(centre_s + half_s) - knots.at(centre_s - half_s)) / (2 * half_s)
    levels = [(groups == group) & steady for group in np.unique(groups[steady])]
    card_w = np.array([mean_w[level].mean() for level in levels])
    meter_w = np.array([meter.power_w[level].mean() for level in levels])
    return card_w, meter_w, np.array([level.sum() for level in levels], dtype=np.float64)


def _smoothed(power_w: Floats) -> Floats:
    """Return means over five knots: what flickers faster is no step."""
    if len(power_w) < 5:
        return power_w
    return np.convolve(power_w, np.full(5, 0.2), "valid")


def _fit(
    card_w: Floats,
    meter_w: Floats,
    counts: Floats,
    resolution_w: float,
    setup: MeterSetup,
    lag: Alignment,
    notes: Sequence[str],
) -> MeterComparison:
    """Fit meter = true / efficiency + rest by weighted least squares over the levels."""
    from scipy.special import stdtrit

    weights = counts / counts.sum()
    card_mean_w = float(weights @ card_w)
    deviation_w = card_w - card_mean_w
    spread = float(weights @ deviation_w**2)
    slope = float(weights @ (deviation_w * meter_w)) / spread
    meter_mean_w = float(weights @ meter_w)
    degrees_of_freedom = len(card_w) - 2
    residual_w = meter_w - meter_mean_w - slope * deviation_w
    scatter = float(weights @ residual_w**2) * len(card_w) / degrees_of_freedom
    # Rounded the same way at each level, a meter's last digit does not show in the scatter.
    rounding_w2 = resolution_w**2 / 12
    u_slope = math.sqrt((scatter / len(card_w) + rounding_w2 / 2) / spread)
    u_meter_mean_w = math.sqrt(scatter / len(card_w) + rounding_w2 / 2)
    if slope <= 0:
        raise MeterError("the meter's power falls when the card draws more: it is not the card's")
    rest_w = setup.rest_w or 0.0
    intercept_w = meter_mean_w - slope * card_mean_w
    if setup.rest_w is None and abs(intercept_w) > _MAX_INTERCEPT_W:
        raise MeterError(
            f"the meter shows {intercept_w:+.0f} W that the card does not: it is not on the card "
            "alone. Say what else it sees (--rest-watts) and what the supply between them loses "
            "(--supply-efficiency), or measure at the card"
        )
    if setup.rest_w is None and intercept_w > _NOTED_INTERCEPT_W:
        notes = [
            *notes,
            f"the meter shows {intercept_w:+.0f} W that the card does not: taken for an offset of "
            "the card's sensor; if other parts draw it, say so with --rest-watts",
        ]
    gain = 1 / (slope * setup.efficiency)
    offset_w = (rest_w - intercept_w) / slope
    # Of (rest - middle + slope · centre) / slope: centre and slope are independent of the middle.
    u_offset_w = math.hypot(u_meter_mean_w, (card_mean_w - offset_w) * u_slope) / slope
    quantile = float(stdtrit(degrees_of_freedom, 0.975))
    return MeterComparison(
        gain=gain,
        u_gain_rel=math.hypot(quantile * u_slope / slope, setup.accuracy),
        offset_w=offset_w,
        u_offset_w=quantile * u_offset_w,
        lag=lag,
        levels=len(card_w),
        notes=tuple(notes),
    )
