"""The node's energy beside its devices': aligned by steps, with an interval that holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llenergymeasure.config.calibration import NO_CALIBRATION, Calibration
from llenergymeasure.config.sensor_gain import Gain
from llenergymeasure.energy.account import Account, account
from llenergymeasure.recording.samples import SampleRow, Samples, make_samples
from llenergymeasure.sensors.base import SensorInfo
from support.recording import header, uuid

S = 1_000_000_000
GPU = uuid(1)
IDLE_W, LOAD_W, REST_W, LOSS = 100.0, 600.0, 250.0, 1.08
CARD = SensorInfo(
    GPU, "Card", "nvml", "measured", "gpu", ("energy_counter_j",), power_limit_w={"max": 700}
)
NODE = SensorInfo("node", "node", "node", "measured", "node", ("power_usage_w",))
WINDOW = (60 * S, 100 * S)
END_S = 130.0


def card_j(t_s: Any) -> Any:
    """Energy of a card that works in the window, and from 20 to 30 s."""
    work_s = np.clip(t_s, 60, 100) - 60 + np.clip(t_s, 20, 30) - 20
    return IDLE_W * t_s + (LOAD_W - IDLE_W) * work_s


def node_j(t_s: Any) -> Any:
    return REST_W * t_s + LOSS * card_j(t_s)


def recorded(
    *,
    lag_s: float = 2.0,
    period_s: float = 1.0,
    average_s: float = 1.0,
    gone: tuple[float, float] = (0.0, 0.0),
    phase_s: float = 0.3,
    jump: tuple[float, float] = (END_S, 0.0),
    load: Callable[[Any], Any] = card_j,
) -> Samples:
    """A card's counter at 10 Hz, and a meter whose readings' means lie ``lag_s`` before them.

    At ``jump[0]`` its clock is put forward by ``jump[1]``.
    """
    rows = []
    for tick in range(1, int(END_S * 10)):
        t_ns = tick * S // 10
        joules = round(float(load(tick / 10)), 3)
        rows.append(SampleRow(t_ns, GPU, "nvml", "energy_counter_j", joules, t_ns - S // 1000))
    for t_s in np.arange(phase_s, END_S, period_s):
        to_s = t_s - lag_s + average_s / 2
        watts = REST_W + LOSS * float(load(to_s) - load(to_s - average_s)) / average_s
        if not gone[0] <= t_s < gone[1]:
            said_s = t_s + (jump[1] if t_s >= jump[0] else 0.0)
            rows.append(SampleRow(int(said_s * S), "node", "node", "power_usage_w", watts))
    return make_samples(rows, header(CARD, NODE))


def metered(samples: Samples) -> Account:
    phases = [
        ("idle_before", 40 * S, 60 * S),
        ("measure", *WINDOW),
        ("idle_after", 100 * S, 120 * S),
    ]
    return account(samples, WINDOW, phases)


TRUE_J = float(node_j(100.0) - node_j(60.0))
DEVICES_J = float(card_j(100.0) - card_j(60.0))


@pytest.mark.parametrize("lag_s", [-5.0, 0.0, 2.0, 7.0])
@pytest.mark.parametrize("average_s", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("phase_s", [0.05, 0.3, 0.5, 0.8])
def test_its_energy_ratio_and_lag_are_those_that_are_true(
    lag_s: float, average_s: float, phase_s: float
) -> None:
    result = metered(recorded(lag_s=lag_s, average_s=average_s, phase_s=phase_s))
    node = result.node
    assert node is not None
    assert node.gross_j is not None, node.unavailable
    assert abs(node.gross_j - TRUE_J) <= node.gross_u95_j
    assert node.gross_u95_j < 0.06 * TRUE_J
    assert abs(node.lag_s - lag_s) <= node.lag_u95_s
    assert node.devices == [GPU]
    assert node.devices_j == pytest.approx(DEVICES_J, rel=0.001)
    assert node.ratio_low <= TRUE_J / DEVICES_J <= node.ratio_high
    assert ("clock is behind" in " ".join(node.notes)) == (lag_s < 0)


def test_what_is_unknown_of_its_lag_is_shared_by_repeats() -> None:
    """It moves both ends of each window alike: over the step that the load makes at either."""
    result = metered(recorded(lag_s=0.0))
    assert result.node is not None
    (meter,) = [each for each in result.readings if each.scope == "node"]
    assert meter.shared_u95_j >= result.node.lag_u95_s * 0.9 * LOSS * (LOAD_W - IDLE_W)
    assert meter.shared_u95_j <= meter.gross_u95_j


def test_it_is_never_in_the_headline_nor_added_to_anything() -> None:
    result = metered(recorded())
    assert [reading.device for reading in result.headline] == [GPU]
    assert result.total is not None
    assert result.total.gross_j == pytest.approx(DEVICES_J, rel=0.001)
    (beside,) = [reading for reading in result.readings if reading.scope == "node"]
    assert beside.headline is False
    assert result.energy(output_tokens=100).node == result.node
    alone = make_samples(
        [reading for reading in rows_of(recorded()) if reading.device == "node"], header(NODE)
    )
    only = metered(alone)
    assert only.total is None
    assert "no sensor was recorded" in only.energy().unavailable
    assert only.node is not None
    assert "too few" in only.node.unavailable


def rows_of(samples: Samples) -> list[SampleRow]:
    return [SampleRow(**row) for row in samples.table.to_pylist()]


def test_missing_seconds_are_told_and_in_the_interval() -> None:
    result = metered(recorded(gone=(70.0, 78.0)))
    assert result.node is not None
    assert "readings are missing over 9.0 s of the window" in " ".join(result.node.notes)
    assert abs(result.node.gross_j - TRUE_J) <= result.node.gross_u95_j
    assert result.node.gross_u95_j > 0.05 * TRUE_J


@pytest.mark.parametrize("at_s", [20.0, 65.0, 80.0, 99.0, 110.0])
@pytest.mark.parametrize("by_s", [-3600.0, 3600.0])
def test_a_clock_put_forward_or_back_amid_the_recording_gives_no_sure_number(
    at_s: float, by_s: float
) -> None:
    node = metered(recorded(jump=(at_s, by_s))).node
    assert node is not None
    if node.gross_j is None:
        assert node.unavailable
        return
    assert abs(node.gross_j - TRUE_J) <= node.gross_u95_j
    missing = [note for note in node.notes if "readings are missing" in note]
    assert not missing or float(missing[0].split(" over ")[1].split(" s ")[0]) <= 40


def test_a_slow_meter_is_told() -> None:
    result = metered(recorded(period_s=5.0, lag_s=2.0))
    assert result.node is not None
    assert "the meter is slow: updated every 5 s, for 40 s" in " ".join(result.node.notes)
    assert abs(result.node.gross_j - TRUE_J) <= result.node.gross_u95_j


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (recorded(lag_s=300.0), "at any shift from -30 to 60 s (a wrong clock"),
        (recorded(load=lambda t_s: 600.0 * t_s), "even load"),
    ],
    ids=["wrong clock", "even load"],
)
def test_what_cannot_be_aligned_has_no_energy_and_says_why(samples: Samples, word: str) -> None:
    node = metered(samples).node
    assert node is not None
    assert node.gross_j is None
    assert word in node.unavailable


def test_a_node_that_shows_less_than_its_devices_is_told() -> None:
    rows = [
        SampleRow(row.t_ns, row.device, row.sensor, row.quantity, row.value / 3, row.t_before_ns)
        if row.device == "node"
        else row
        for row in rows_of(recorded())
    ]
    node = metered(make_samples(rows, header(CARD, NODE))).node
    assert node is not None
    assert "shows less than its devices" in " ".join(node.notes)


def test_a_calibration_may_be_of_the_node_and_the_record_says_so() -> None:
    calibration = Calibration(
        {"node": Gain(1.05, 0.03, "a meter"), "GPU-other": Gain(0.9, 0.01, "a meter")},
        path=Path("mine.yaml"),
        sha256="0" * 64,
    )
    plain, result = (
        account(recorded(), WINDOW, calibration=each) for each in (NO_CALIBRATION, calibration)
    )
    assert plain.node is not None
    assert result.node is not None
    assert result.node.gross_j == pytest.approx(plain.node.gross_j / 1.05)
    assert result.node.gross_u95_j == pytest.approx(plain.node.gross_u95_j / 1.05)
    assert result.node.u_sys_j == pytest.approx(0.03 * result.node.gross_j)
    noted = calibration.for_record(result.calibratable)
    assert noted is not None
    assert [*noted["gains"]] == ["node"]
