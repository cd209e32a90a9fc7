"""Power over time: which run stands for its experiment."""

import pytest

from llenergymeasure.recording.samples import Header, SampleRow, make_samples
from llenergymeasure.report.findings import ENERGY_PER_TOKEN
from llenergymeasure.report.traces import (
    Trace,
    _phases_chart,
    _phases_text,
    _total_power,
    _typical_run,
)
from llenergymeasure.sensors.base import SensorInfo

ROW = {"experiment": "a", f"{ENERGY_PER_TOKEN}_mean": 2.0}


def test_the_run_nearest_to_the_mean_stands_for_its_experiment() -> None:
    energies_j = {1: 1.0, 2: 2.1, 3: 3.0, 4: 1.9}
    runs = [
        {"experiment": "a", "cycle": n, ENERGY_PER_TOKEN: energy_j}
        for n, energy_j in energies_j.items()
    ]
    other_runs = [
        {"experiment": "b", "cycle": 9, ENERGY_PER_TOKEN: 2.0},
        {**runs[0], ENERGY_PER_TOKEN: None, "cycle": 5},
    ]
    run = _typical_run(ROW, [*other_runs, *runs])
    assert run is not None
    assert run["cycle"] in (2, 4)
    assert _typical_run({**ROW, f"{ENERGY_PER_TOKEN}_mean": None}, runs) is None
    assert _typical_run(ROW, other_runs) is None


def test_power_is_that_of_the_cards_whose_energy_is_the_headline() -> None:
    """A run that was given two cards may compute on one: the other's rest is none of its."""
    watts = {"GPU-1": 300.0, "GPU-2": 100.0}
    rows = [
        SampleRow(at_ns, card, "nvml", "power_instant_w", power_w)
        for at_ns in range(0, 10**10, 10**9)
        for card, power_w in watts.items()
    ]
    infos = tuple(SensorInfo(card, "H200", "nvml", "measured", "gpu") for card in watts)
    header = Header(None, None, "host", 0, "2026-01-01T00:00:00+00:00", infos)
    samples = make_samples(rows, header)
    both = {("nvml", card) for card in watts}
    for sensors, power_w in (({("nvml", "GPU-1")}, 300.0), (both, 400.0)):
        assert {value for _, value in _total_power(samples, sensors, 0)} == {power_w}


@pytest.mark.parametrize("wide", [True, False])
def test_labels_of_energy_by_phase_are_never_cut(wide: bool) -> None:
    label = "bf16 · batch_size=8 · attn_implementation=eager, cycle 1"
    trace = Trace(label, [(0.0, 1.0)], [], [("load", 2.0), ("measure", 1.0)])
    chart = _phases_chart([trace], wide=wide)
    axis = chart["encoding"]["y"]["axis"]
    assert axis["labelLimit"] == 0
    # Above the bars, where a label has the drawing's whole width.
    assert axis["labelAlign"] == "left"
    assert axis["labelOffset"] < 0


def test_phases_of_one_kind_are_one_in_words() -> None:
    energies = [("other", 1.0), ("load", 2.0), ("other", 3.0)]
    assert _phases_text(Trace("a", [], [], energies)) == "a: other 4.00 J, load 2.00 J"
