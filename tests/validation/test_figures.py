"""The figures of a card: from recordings whose truth is known, and from the kept ones."""

from pathlib import Path

import numpy as np
import pytest
from gpu_stages import figures, page, sensor
from gpu_stages.sensor import Channel, Mark

from support.studies import ROOT

H100 = ROOT / "docs" / "validation" / "nvidia-h100-80gb-hbm3-580.159.04"


def stepped(lag_s: float) -> tuple[list[Mark], np.ndarray, np.ndarray, np.ndarray]:
    """A load of 100 and 700 W that steps at odd times, and a counter that follows late."""
    edges_s = 2.0 + np.cumsum(np.random.default_rng(1).uniform(0.6, 0.95, 24))
    stretches = [
        Mark(at, "on" if number % 2 == 0 else "off", until)
        for number, (at, until) in enumerate(
            zip(edges_s, [*edges_s[1:], edges_s[-1] + 1], strict=True)
        )
    ]
    before_s = np.arange(0, edges_s[-1] + 1, 0.004)
    fine_s = np.arange(0, edges_s[-1] + 2, 0.0005)
    on = (np.searchsorted(edges_s, fine_s - lag_s) % 2) == 1
    energy_j = np.cumsum(np.where(on, 700.0, 100.0)) * 0.0005
    tick_s = 0.037 + 0.1 * np.floor((before_s + 0.002 - 0.037) / 0.1)
    counter_j = np.round(np.interp(np.maximum(tick_s, 0), fine_s, energy_j), 3)
    return stretches, before_s, before_s + 0.003, counter_j


@pytest.mark.parametrize("lag_s", [0.0, 0.02])
def test_the_lag_of_a_counter_is_found(lag_s: float) -> None:
    stretches, before_s, after_s, counter_j = stepped(lag_s)
    grid = sensor.ticks(before_s, after_s, counter_j)
    assert grid is not None
    assert grid.period_s == pytest.approx(0.1, rel=1e-4)
    assert grid.unsure_ms[0] <= 0 <= grid.unsure_ms[1]
    found_ms = sensor.lag_ms(grid, stretches)
    assert len(found_ms) >= 8
    assert np.median(found_ms) == pytest.approx(lag_s * 1e3, abs=3)


def test_a_counter_that_never_ticks_has_no_grid() -> None:
    moments_s = np.arange(0, 5, 0.01)
    assert sensor.ticks(moments_s, moments_s + 0.001, np.ones(len(moments_s))) is None


def test_means_of_a_held_reading_and_of_a_counter() -> None:
    reading = Channel(np.array([0.0, 1.0, 2.0]), np.array([100.0, 200.0, 400.0]))
    assert reading.held_mean(0.5, 2.5) == pytest.approx((50 + 200 + 200) / 2)
    assert reading.held_mean(-1.0, 0.5) is None
    counter = Channel(np.array([0.0, 1.0, 2.0]), np.array([0.0, 100.0, 300.0]))
    assert counter.counted_w(0.5, 1.5) == pytest.approx(150)
    assert counter.counted_w(1.0, 9.0) is None


def test_a_mean_ratio_has_an_interval_or_nothing() -> None:
    centre, low, high = figures.mean_ratio([0.98, 1.02, 1.0, 1.0])
    assert low < centre < high
    assert figures.mean_ratio([1.0, 1.0]) is None


def test_the_page_of_the_h100_is_what_its_recordings_give() -> None:
    path = H100.parent / f"{H100.name}.md"
    assert page.text(H100) == path.read_text(), (
        "run: python benchmarks/gpu_validation.py --page docs/validation/" + H100.name
    )


def test_the_h100_s_counter_is_not_the_sum_of_its_readings() -> None:
    raw = sensor.raw(H100 / "raw")
    locked = [each for each in raw["stretches"] if each["load"] == "25 / 75 ms"]
    apart = [each["instant_w"] / each["counter_w"] - 1 for each in locked]
    assert max(apart) > 0.3
    assert min(apart) < -0.1
    assert raw["ticks"].period_s == pytest.approx(0.1, rel=1e-4)
    assert 0 < np.median(raw["lag_ms"]) < 15
    assert raw["usage_is_average"] == 1.0


def test_nothing_kept_names_the_machine() -> None:
    for path in H100.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for word in (b"/home/", b"/work/", b"/opt/", b"http://", b"https://"):
                assert word not in content, (path, word)


def test_a_page_can_be_made_of_very_little(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"stages": {"raw": {"skipped": "no time"}}}')
    assert "skipped: no time" in page.text(tmp_path)
