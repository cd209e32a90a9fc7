"""A card without a counter: the energy of its power readings, each a mean of all of its period."""

from collections.abc import Callable

import numpy as np
import pytest

from energy.metering import A100, H100, RTX_3090, UNKNOWN, metered, of_samples, window_ns
from llenergymeasure.energy.account import account
from llenergymeasure.energy.window import Margin
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.sensors.known_behaviour import Behaviour, PowerBehaviour
from support import energy_card as card


def bursts(seed: int) -> card.Power:
    """Work of some ms now and then between rests that show the same power again and again."""
    rng = np.random.default_rng(seed)
    begins_s = 5.0 + np.cumsum(rng.uniform(0.6, 1.4, 14))
    begins_s = begins_s[begins_s < 14.8]
    edges_s = np.column_stack((begins_s, begins_s + rng.uniform(0.03, 0.15, len(begins_s))))
    watts = np.column_stack((rng.uniform(250, 450, len(begins_s)), np.full(len(begins_s), 80.0)))
    return card.Power([-10.0, *edges_s.ravel()], [80.0, *watts.ravel()])


@pytest.mark.parametrize("update_s", [0.02, 0.1])
@pytest.mark.parametrize("call_s", [0.0001, 0.004])
def test_a_value_that_is_shown_again_takes_nothing_from_the_next(
    call_s: float, update_s: float
) -> None:
    off, covered = [], []
    sensor = card.Sensor(update_s=update_s, window_s=update_s, counter_s=None, call_s=call_s)
    channel = PowerBehaviour("power_instant_w", update_s, update_s, "found")
    # Of an RTX 3090 the period of 0.1 s is published.
    probed = {"name": UNKNOWN, "known": Behaviour(power=(channel,))}
    known = {"name": RTX_3090} if update_s == 0.1 else probed
    for seed in range(12):
        window = metered(bursts(seed), sensor, after_s=5, **known)
        assert window.codes == set()
        off.append(window.reading.gross_j / window.true_j - 1)
        covered.append(window.is_covered)
    assert abs(np.mean(off)) < 0.002
    assert np.mean(covered) > 0.9


@pytest.mark.parametrize("update_s", [0.02, 0.1])
def test_the_length_of_a_load_s_steps_is_no_period_of_its_sensor(update_s: float) -> None:
    off = []
    sensor = card.Sensor(update_s=update_s, window_s=0.001, counter_s=None)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        edges_s = np.cumsum(rng.uniform(0.6, 2.0, 40))
        load = card.Power([-10.0, *edges_s], rng.integers(80, 450, 41).astype(float))
        window = metered(load, sensor, name=UNKNOWN, after_s=5)
        assert window.codes == {"undersampled"}
        off.append(window.reading.gross_j / window.true_j - 1)
    assert abs(np.mean(off)) < 0.004


def test_a_phase_without_margins_has_no_rest_that_readings_hide() -> None:
    sensor = card.Sensor(counter_s=None, window_s=0.025, average_s=1.0)
    samples = card.record(card.work(3, 58), sensor, 60.0, name=H100)
    (source,) = account(samples, window_ns(20, 40)).headline_sources
    plain_j, at_phase_j, hidden_j = (
        source.channel._smear_j(22.0, margin)
        for margin in (None, Margin(22.0, 22.0), Margin(21.96, 22.0))
    )
    assert plain_j == at_phase_j < hidden_j


def test_a_stretch_that_holds_one_reading_is_as_unsure_as_those_next_to_it() -> None:
    load = card.work(3, 58)
    sensor = card.Sensor(window_s=0.025, counter_s=None)
    samples = card.record(load, sensor, 60.0, name=A100)
    covered = [
        of_samples(samples, load, (start_s, start_s + 0.12), margins=False).is_covered
        for start_s in np.arange(5.0, 50.0, 1.37)
    ]
    assert np.mean(covered) > 0.93


@pytest.mark.parametrize("stop_s", [0.0, 0.3, 0.6])
def test_what_was_drawn_while_the_recorder_got_no_time_is_in_the_interval(stop_s: float) -> None:
    covered, relative = [], []
    options = {"name": RTX_3090, "margins": False, "precision": 0.4}
    for seed in range(12):
        stops = [(20.5 + 0.25 * seed, stop_s)] if stop_s else []
        sensor = card.Sensor(counter_s=None, recorder_stops=stops)
        window = metered(card.work(-4.0, 44.0, seed), sensor, (20.0, 25.0), **options)
        assert window.codes == set()
        covered.append(window.is_covered)
        assert window.reading.gross_u95_j <= window.reading.bound_j
        relative.append(window.reading.gross_u95_j / window.reading.gross_j)
    assert np.mean(covered) > 0.9
    assert np.median(relative) < 0.01 + 0.4 * stop_s


@pytest.mark.parametrize("call_s", [0.008, 0.02])
def test_slow_calls_are_no_pauses_of_the_recorder(call_s: float) -> None:
    """Where each reading comes late, none of them was read after a pause."""
    sensor = card.Sensor(update_s=0.02, window_s=0.01, counter_s=None, call_s=call_s)
    windows = [metered(bursts(seed), sensor, name="V100", after_s=5) for seed in range(10)]
    off = [window.reading.gross_j / window.true_j - 1 for window in windows]
    assert abs(np.mean(off)) < 0.015
    assert np.std(off) < 0.025


def test_means_over_just_their_own_period_are_energies_which_nothing_is_smeared_in() -> None:
    """With the power taken as linear between them 14 of 40 were outside their intervals."""
    covered, widths = 0, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        end_s = 8.0 + float(rng.uniform(1.0, 6.0))
        load = card.Power([-10.0, 8.0, end_s], [80.0, float(rng.uniform(200, 450)), 80.0])
        sensor = card.Sensor(counter_s=None, phase_s=float(rng.uniform(0, 0.1)))
        window = metered(load, sensor, (8.0, end_s), name=RTX_3090, margins=False)
        covered += window.is_covered
        widths.append(window.reading.gross_u95_j / window.true_j)
    assert covered >= 36
    assert np.median(widths) < 0.02


class AverageAlone(card.Sensor):
    """A card that gives means over 1 s and nothing else."""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What it gives."""
        return ("power_average_w",)


def between_margins(start_s: float, end_s: float, seed: int) -> card.Power:
    """Even work that goes on where the margins end."""
    level_w = 320.0 + seed % 3
    return card.Power(
        [-10.0, start_s - 0.45, start_s, end_s, end_s + 0.45], [300.0, 60.0, level_w, 60.0, 300.0]
    )


@pytest.mark.parametrize(
    ("load", "held", "most"),
    [
        pytest.param(card.work, range(25, 32), 1.3, id="between rests"),
        pytest.param(between_margins, range(1), 2.2, id="amid other work"),
    ],
)
def test_limits_of_means_over_one_second_alone_are_those_that_the_page_names(
    load: Callable[[float, float, int], card.Power], held: range, most: float
) -> None:
    """They do not show the power of a margin of 0.4 s (docs/method.md, section 10)."""
    errors = []
    for seed in range(35):
        begins = np.random.default_rng(seed).uniform(0, 0.1, 2)
        start_s = 8 + float(begins[0])
        sensor = AverageAlone(
            counter_s=None, window_s=None, average_s=1.0, phase_s=float(begins[1])
        )
        power, window_s = load(start_s, start_s + 5, seed), (start_s, start_s + 5)
        window = metered(power, sensor, window_s, name="NVIDIA L40S", after_s=6)
        errors.append(window.off_j / window.reading.gross_u95_j)
    assert sum(error <= 1 for error in errors) in held
    assert max(errors) < most
