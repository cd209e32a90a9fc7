"""The window holds whole passes over the batch plan and nothing else, between two short rests."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.energy.idle_margins import MARGIN_S, MARGINS
from llenergymeasure.run.engine import phase_marks
from llenergymeasure.run.engine.batch_window import Window, cut_batches, measure_window
from llenergymeasure.run.engine.phase_marks import Marks, read_marks
from llenergymeasure.units import NS_PER_S

STEP_S = 0.01


class Working:
    """An engine that takes a while for each batch, and notes what is asked of it when."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def generate(self, requests: Sequence[Any]) -> list[Any]:
        self.calls.append(("generate", time.monotonic_ns()))
        time.sleep(STEP_S)
        return list(requests)

    def synchronize(self) -> None:
        self.calls.append(("synchronize", time.monotonic_ns()))


def measured(
    folder: Path, *, margins: bool, min_s: float = 0.0, min_batches: int = 1
) -> tuple[Window, Working, dict[str, tuple[int, int]]]:
    """Measure a plan of three batches of two."""
    engine: Any = Working()
    protocol: Any = SimpleNamespace(window_min_s=min_s, min_batches=min_batches)
    requests: Any = list(range(5))
    marks = Marks(folder / "marks")
    batches = cut_batches(requests, 2)
    window = measure_window(engine, batches, protocol, marks, margins=margins)
    phases = {
        name: (start_ns, end_ns)
        for name, start_ns, end_ns in read_marks(folder / "marks")
        if end_ns is not None
    }
    return window, engine, phases


def test_marks_that_come_in_the_moment_of_a_look_are_none_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "marks"

    def reads_just_before(_: Path) -> bytes:
        try:
            return path.read_bytes()
        finally:
            Marks(path)  # the engine's process begins them here

    monkeypatch.setattr(phase_marks, "read_bytes", reads_just_before)
    assert read_marks(path) == []
    assert path.is_file()


def test_rests_are_next_to_the_window_and_not_in_it(tmp_path: Path) -> None:
    window, engine, phases = measured(tmp_path, margins=True)

    before, after = (phases[name] for name in MARGINS)
    assert list(phases) == [MARGINS[0], "measure", MARGINS[1]]
    for start_ns, end_ns in (before, after):
        assert end_ns - start_ns >= MARGIN_S * NS_PER_S
    assert before[1] <= window.start_ns < window.end_ns <= after[0]
    # The devices have nothing left to do when a rest begins.
    synchronised = [at_ns for name, at_ns in engine.calls if name == "synchronize"]
    assert synchronised[0] <= before[0]
    assert window.end_ns <= synchronised[1] <= after[0]
    work = [at_ns for name, at_ns in engine.calls if name == "generate"]
    assert window.start_ns <= work[0]
    assert work[-1] < window.end_ns
    assert window.work_s == pytest.approx((window.end_ns - window.start_ns) / NS_PER_S)


def test_where_nothing_has_steps_there_are_no_rests(tmp_path: Path) -> None:
    _, engine, phases = measured(tmp_path, margins=False)
    assert list(phases) == ["measure"]
    assert {name for name, _ in engine.calls} == {"generate"}


@pytest.mark.parametrize(
    ("min_s", "min_batches", "batches"), [(0.0, 1, 3), (0.0, 4, 6), (3.5 * STEP_S, 1, 6)]
)
def test_whole_passes_until_it_is_long_enough(
    tmp_path: Path, min_s: float, min_batches: int, batches: int
) -> None:
    window, _, _ = measured(tmp_path, margins=False, min_s=min_s, min_batches=min_batches)
    assert window.batches % 3 == 0
    if min_s == 0:
        assert window.batches == batches
    assert window.work_s >= min_s
    assert window.batches >= min_batches
    assert window.completions == [0, 1, 2, 3, 4] * (window.batches // 3)
    one_pass = [0, 0, 1, 1, 2]
    assert window.batch_of_request == [
        3 * number + batch for number in range(window.batches // 3) for batch in one_pass
    ]
