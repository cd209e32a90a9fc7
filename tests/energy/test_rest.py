"""Rest, bracketed: which phases count, and what their drift adds."""

import pytest
from llenergymeasure.energy.interval import expanded
from llenergymeasure.meter.device import open_device

from llenergymeasure.energy.rest import idle_power, rests
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


@pytest.fixture(scope="module")
def channel():
    return open_device(card.record(POWER), card.info()).counter


def test_the_loaded_rests_around_the_window_are_taken_off(channel) -> None:
    found = rests(channel, PHASES, WINDOW)
    assert [(rest.phase, rest.loaded, rest.before) for rest in found] == [
        ("idle_before", False, True),
        ("idle_loaded", True, True),
        ("idle_after", True, False),
    ]
    idle = idle_power(found)
    assert idle.power_w == pytest.approx(85.0, abs=0.05)
    assert idle.drift_w == pytest.approx(10.0, abs=0.05)


def test_drift_between_the_rests_enters_the_uncertainty(channel) -> None:
    idle = idle_power(rests(channel, PHASES, WINDOW))
    # Anywhere between the two rests: 5 W either way for 18 s.
    assert expanded(idle.components(18.0)) == pytest.approx(5.0 * 18, rel=0.15)


def test_a_steady_rest_adds_next_to_nothing(channel) -> None:
    found = [rest for rest in rests(channel, PHASES, WINDOW) if rest.phase == "idle_before"]
    idle = idle_power(found)
    assert idle.drift_w == 0.0
    assert idle.power_w == pytest.approx(60.0, abs=0.05)
    assert expanded(idle.components(18.0)) < 2.0


def test_without_a_phase_at_rest_there_is_no_idle_power(channel) -> None:
    assert idle_power(rests(channel, [PHASES[1], PHASES[3]], WINDOW)) is None


def test_a_phase_within_the_window_is_no_rest(channel) -> None:
    inside = [("idle_gap", card.ns(27), card.ns(29))]
    assert rests(channel, inside, WINDOW) == ()


def test_a_phase_that_was_not_recorded_is_left_out(channel) -> None:
    outside = [("idle_after", card.ns(59), card.ns(90))]
    assert rests(channel, outside, WINDOW) == ()
