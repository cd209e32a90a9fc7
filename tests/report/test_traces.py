"""Power over time: which run stands for its experiment."""

import pytest

from llenergymeasure.report.findings import TOKEN
from llenergymeasure.report.traces import Trace, _phases_chart, _typical

ROW = {"experiment": "a", f"{TOKEN}_mean": 2.0}


def test_the_run_nearest_to_the_mean_stands_for_its_experiment() -> None:
    energies_j = {1: 1.0, 2: 2.1, 3: 3.0, 4: 1.9}
    runs = [{"experiment": "a", "cycle": n, TOKEN: energy_j} for n, energy_j in energies_j.items()]
    others = [{"experiment": "b", "cycle": 9, TOKEN: 2.0}, {**runs[0], TOKEN: None, "cycle": 5}]
    chosen = _typical(ROW, [*others, *runs])
    assert chosen is not None
    assert chosen["cycle"] in (2, 4)
    assert _typical({**ROW, f"{TOKEN}_mean": None}, runs) is None
    assert _typical(ROW, others) is None


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
