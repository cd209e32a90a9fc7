"""The rest that is taken off: which phases, and an interval that holds when it does not stand."""

import numpy as np
import pytest

from energy.metering import KEY, window_ns
from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.device import open_device
from llenergymeasure.energy.idle_power import IdlePower, PhaseSpan, idle_power
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

# Bare 60 W, loading, loaded 80 W, work, loaded 90 W.
POWER = card.Power([-10, 10, 15, 25, 45], [60, 200, 80, 300, 90])
PHASES = [
    ("idle_before", card.ns(1), card.ns(9.5)),
    ("load", card.ns(10), card.ns(15)),
    ("idle_loaded", card.ns(16), card.ns(24.5)),
    ("measure", card.ns(25), card.ns(45)),
    ("idle_after", card.ns(46), card.ns(58)),
]
WINDOW = (card.ns(26), card.ns(44))
KNOTS = open_device(card.record(POWER), card.info()).counter.knots


def rest_of(phases: list[PhaseSpan]) -> IdlePower | None:
    return idle_power(KNOTS, phases, WINDOW)


def test_the_loaded_rests_next_to_the_work_are_taken_off() -> None:
    idle = rest_of(PHASES)
    assert idle.phases == ("idle_loaded", "idle_after")
    assert idle.power_w == pytest.approx(85.0, abs=0.05)
    # Anywhere between the two: 5 W either way.
    assert idle.deviation_w == pytest.approx(5.0, abs=0.05)
    assert not idle.is_steady


def test_a_steady_rest_adds_next_to_nothing() -> None:
    idle = rest_of(PHASES[:1])
    assert idle.power_w == pytest.approx(60.0, abs=0.05)
    assert idle.deviation_w < 0.05
    assert idle.is_steady


def test_only_the_seconds_next_to_the_work_stand_for_it() -> None:
    power = card.Power([-10, 12, 20, 40], [120, 70, 300, 70])
    knots = open_device(card.record(power), card.info()).counter.knots
    phases = [("idle_before", card.ns(1), card.ns(19.5)), ("idle_after", card.ns(41), card.ns(59))]
    idle = idle_power(knots, phases, (card.ns(20), card.ns(40)))
    assert idle.power_w == pytest.approx(70.0, abs=0.1)
    assert idle.is_steady


@pytest.mark.parametrize(
    "phases",
    [
        [PHASES[1], PHASES[3]],
        [("idle_gap", card.ns(27), card.ns(29))],
        [("idle_after", card.ns(59), card.ns(90))],
    ],
)
def test_without_a_recorded_rest_beside_the_window_nothing_is_taken_off(
    phases: list[PhaseSpan],
) -> None:
    assert rest_of(phases) is None


IDLE_S, START_S, END_S, WHOLE_S = 11.0, 14.0, 24.0, 36.0


def flat(t_s: np.ndarray) -> np.ndarray:
    return np.full(len(t_s), 95.0)


def linear(t_s: np.ndarray) -> np.ndarray:
    return 95.0 + 20.0 * t_s / WHOLE_S


def leakage(t_s: np.ndarray) -> np.ndarray:
    """25 W more when hot, taken up and given off within 8 s."""
    hot = 25 * (1 - np.exp(-np.maximum(np.minimum(t_s, END_S) - IDLE_S, 0) / 8))
    return 95.0 + hot * np.exp(-np.maximum(t_s - END_S, 0) / 8)


def states(t_s: np.ndarray) -> np.ndarray:
    """120 W from the first work until 4 s after the last, else 70 W."""
    return np.where((t_s >= IDLE_S) & (t_s < END_S + 4), 120.0, 70.0)


def fluctuating(t_s: np.ndarray) -> np.ndarray:
    rng, keep, off_w = np.random.default_rng(5), np.exp(-0.05 / 2), [0.0]
    for _ in t_s[1:]:
        off_w.append(keep * off_w[-1] + rng.normal(0, 6 * np.sqrt(1 - keep**2)))
    return 95.0 + np.array(off_w)


def measured(rest, net_w: float) -> tuple[Account, float, float]:
    """A window of work upon a rest that need not stand still: account, true gross and net."""
    t_s = np.arange(-10.0, WHOLE_S, 0.05)
    working = ((t_s >= IDLE_S) & (t_s < START_S - 0.5)) | ((t_s >= START_S) & (t_s < END_S))
    power = card.Power(t_s.tolist(), (rest(t_s) + net_w * working).tolist())
    phases = [
        ("idle_before", card.ns(1), card.ns(IDLE_S)),
        *card.margins(START_S, END_S),
        ("idle_after", card.ns(END_S + 0.4), card.ns(35)),
    ]
    samples = card.record(power, card.H100, WHOLE_S, name="NVIDIA H100 80GB HBM3")
    gross_j = float(power.energy(START_S, END_S))
    behaviours = {KEY: Behaviour("independent", 0.1)}
    result = account(samples, window_ns(START_S, END_S), phases, behaviours=behaviours)
    return result, gross_j, 10.0 * net_w


@pytest.mark.parametrize("net_w", [318.0, 31.8])
@pytest.mark.parametrize("rest", [flat, linear, leakage, states, fluctuating])
def test_net_energy_is_covered_or_coded_and_gross_energy_does_not_mind(rest, net_w: float) -> None:
    result, gross_j, net_j = measured(rest, net_w)
    (reading,) = result.headline
    covered = abs(reading.net_j - net_j) <= reading.net_u95_j
    assert covered or "rest_not_steady" in result.validity
    # A rest that fluctuates next to the work is no exact margin: 95 % of windows are covered.
    assert abs(reading.gross_j - gross_j) <= (2 if rest is fluctuating else 1) * reading.gross_u95_j
    assert reading.gross_u95_j < 0.001 * gross_j
    if rest is flat:
        assert covered
        assert reading.net_u95_j < 0.001 * gross_j
        assert "rest_not_steady" not in result.validity


def test_a_rest_that_moves_widens_net_energy_alone() -> None:
    steady, _, _ = measured(flat, 318.0)
    moving, _, _ = measured(linear, 318.0)
    assert moving.headline[0].net_u95_j > 20 * steady.headline[0].net_u95_j
    assert moving.headline[0].gross_u95_j < 0.001 * moving.headline[0].gross_j
    assert moving.headline[0].net_u95_j > 20 * moving.headline[0].gross_u95_j
    assert "the work" not in moving.validity["rest_not_steady"]


def test_net_energy_below_zero_is_as_unsure_as_it_is_below() -> None:
    """No work draws less than the rest within it: what was next to it was another rest."""
    result, _, net_j = measured(flat, -20.0)
    (reading,) = result.headline
    assert reading.net_j == pytest.approx(net_j, rel=0.01)
    assert reading.net_j + reading.net_u95_j >= 0.0
    assert "W less than idle_before" in result.validity["rest_not_steady"]
    assert "differ" not in result.validity["rest_not_steady"]
