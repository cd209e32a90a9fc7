"""A trend along the order of the runs: found where it is, and not where cycles differ."""

import numpy as np
import pytest
from scipy import stats

from analysis.studies import blocks
from llenergymeasure.analysis.blocks import Blocks, drift, has_one_order
from llenergymeasure.report.findings import trend_sentence


def shuffled(rng, experiments, cycles):
    return np.array([rng.permutation(experiments) + 1.0 + c * experiments for c in range(cycles)])


def test_a_trend_is_found_under_different_levels():
    rng = np.random.default_rng(7)
    order = shuffled(rng, 3, 6)
    logs = np.log([1.0, 5.0, 0.2]) + rng.normal(0, 0.001, (6, 3)) + 0.01 * order
    found = drift(blocks(logs, order=order))
    assert found.per_run == pytest.approx(np.expm1(0.01), rel=0.05)
    assert found.ci95_low <= found.per_run <= found.ci95_high
    assert (found.detected, found.runs) == (True, 18)


@pytest.mark.parametrize("missing", [[], [(1, 2), (3, 0)]], ids=["whole", "runs are missing"])
def test_the_trend_is_that_of_least_squares_with_a_level_for_each_experiment_and_cycle(missing):
    rng = np.random.default_rng(8)
    order = shuffled(rng, 4, 5)
    logs = rng.normal(0, 0.01, (5, 4)) + rng.normal(0, 0.03, (5, 1)) + 0.002 * order
    for cell in missing:
        logs[cell] = np.nan
    found = drift(blocks(logs, order=order))
    rows, columns = np.nonzero(np.isfinite(logs))
    design = np.column_stack(
        [
            order[rows, columns],
            *(columns == each for each in range(4)),
            *(rows == each for each in range(1, 5)),
        ]
    ).astype(float)
    fitted, (squares,), _, _ = np.linalg.lstsq(design, logs[rows, columns], rcond=None)
    freedom = len(rows) - design.shape[1]
    error = np.sqrt(squares / freedom * np.linalg.inv(design.T @ design)[0, 0])
    half_width = stats.t.ppf(0.975, freedom) * error
    ends = fitted[0] - half_width, fitted[0], fitted[0] + half_width
    shown = found.ci95_low, found.per_run, found.ci95_high
    assert np.log1p(shown) == pytest.approx(ends, rel=1e-6)


def test_one_experiment_shows_its_trend_over_cycles():
    order = np.arange(1.0, 9)[:, None]
    logs = 0.01 * order + 0.001 * np.array([[1, -1, 1, 1, -1, -1, 1, -1]]).T
    found = drift(blocks(logs, order=order))
    assert found.detected
    assert not found.by_cycle
    assert "or cycles are merely like the ones before them" in trend_sentence(found)


@pytest.mark.parametrize(
    ("experiments", "cycles", "correlation", "most"),
    [(20, 3, 0.0, 0.08), (20, 3, 0.9, 0.2), (1, 40, 0.6, 0.18)],
)
def test_a_machine_that_wanders_from_run_to_run_rarely_drifts(
    experiments, cycles, correlation, most
):
    """Without the widening 34 % of the studies that wander have a trend."""
    rng, detected = np.random.default_rng(12), []
    for _ in range(200):
        order = shuffled(rng, experiments, cycles)
        steps = rng.normal(0, 1, order.size)
        for place in range(1, order.size):
            steps[place] *= (1 - correlation**2) ** 0.5
            steps[place] += correlation * steps[place - 1]
        logs = rng.normal(0, 0.003, order.shape) + 0.02 * steps[order.astype(int) - 1]
        detected.append(drift(blocks(logs, order=order)).detected)
    assert np.mean(detected) <= most


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([[0, 1, 2], [3, 4, 5]], True),
        ([[2, 0, 1], [5, 3, 4], [8, 6, 7]], True),
        ([[0, 1], [2, 3]], True),
        ([[0, np.nan, 1], [2, 3, 4], [5, 6, 7]], True),
        ([[0, 1, 2], [5, 4, 3]], False),
        ([[0, 1, 2], [4, 5, 3], [8, 6, 7]], False),
        ([[0, 1], [3, 2], [4, 5]], False),
        ([[0, 1, 2]], False),
        ([[0, np.nan], [np.nan, 1]], False),
        ([[0], [1], [2]], False),
        (
            [[place + 4 * cycle for place in range(4)] for cycle in range(9)] + [[37, 36, 38, 39]],
            True,
        ),
    ],
)
def test_whether_all_cycles_ran_in_one_order(orders, expected):
    orders = np.array(orders, float)
    logs = np.where(np.isfinite(orders), 0.0, np.nan)
    names = tuple(map(str, range(orders.shape[1])))
    data = Blocks(names, tuple(range(len(orders))), logs, orders + 1, 0 * orders, orders)
    assert has_one_order(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        blocks([[0.0, 0.1], [0.1, 0.3]]),
        blocks([[0.0, 0.1, 0.2, 0.3, 0.4]]),
        blocks(np.random.default_rng(9).normal(0, 0.01, (6, 4))),
        blocks(
            np.random.default_rng(9).normal(0, 0.01, (6, 2)),
            order=np.transpose([np.arange(1, 7), np.arange(7, 13)]),
        ),
    ],
    ids=["too few", "one cycle", "always the same place", "one experiment after the other"],
)
def test_runs_that_cannot_tell_claim_nothing(data):
    assert drift(data) is None
