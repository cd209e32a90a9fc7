"""Energy of batches whose pauses are shorter than a counter's step."""

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.energy.account import account
from llenergymeasure.energy.batches import Batch, batch_energies
from support import energy_card as card


def batches_of(seed: int, pause_s: float) -> tuple[card.Power, list[tuple[float, float, float]]]:
    """Prefill, decode that varies every 10 to 50 ms, and a pause, 14 times."""
    rng = np.random.default_rng(seed)
    edges_s, levels_w, marks_s, now_s = [-10.0], [90.0], [], 3.0
    for _ in range(14):
        prefill_s, whole_s = rng.uniform(0.05, 0.3), rng.uniform(0.5, 1.6)
        parts_s = prefill_s + np.cumsum(rng.uniform(0.01, 0.05, 160))
        parts_s = parts_s[parts_s < whole_s]
        decode_w = 400 * rng.uniform(0.7, 1.3, len(parts_s) + 1)
        edges_s += [now_s, now_s + prefill_s, *(now_s + parts_s), now_s + whole_s]
        levels_w += [rng.uniform(585, 650), *decode_w, 110.0]
        marks_s.append((now_s, now_s + prefill_s, now_s + whole_s))
        now_s += whole_s + pause_s * rng.uniform(0.5, 1.5)
    return card.Power(edges_s, levels_w), marks_s


@pytest.mark.parametrize("pause_s", [0.005, 0.02, 0.05, 0.1, 0.3, 0.6])
def test_batches_are_in_their_intervals_however_short_their_pauses(pause_s: float) -> None:
    covered, widths, errors = [], [], []
    for seed in range(6):
        power, marks_s = batches_of(seed, pause_s)
        rng = np.random.default_rng(seed)
        sensor = replace(
            card.H100,
            phase_s=rng.uniform(0, 0.1),
            counter_phase_s=rng.uniform(0, 0.1),
            call_s=0.0005,
        )
        end_s = marks_s[-1][2]
        samples = card.record(power, sensor, end_s + 2, name="NVIDIA H100 80GB HBM3")
        result = account(samples, (card.ns(3.0), card.ns(end_s)))
        batches = [
            Batch(card.ns(a_s), card.ns(c_s), (card.ns(b_s), card.ns(b_s)), 10, 10, 1)
            for a_s, b_s, c_s in marks_s
        ]
        for (start_s, _, stop_s), energy in zip(
            marks_s, batch_energies(result, batches), strict=True
        ):
            true_j = float(power.energy(start_s, stop_s))
            assert energy.energy_j is not None
            assert energy.u95_j is not None
            covered.append(abs(energy.energy_j - true_j) <= energy.u95_j)
            widths.append(energy.u95_j / true_j)
            errors.append(abs(energy.energy_j - true_j) / true_j)
    assert np.mean(covered) >= 0.95
    assert np.median(widths) < 0.05
    assert np.quantile(errors, 0.95) < 0.06


def test_phases_that_begin_and_end_where_the_load_changes_are_in_their_intervals() -> None:
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        start_s = 4 + rng.uniform(0, 0.1)
        end_s = start_s + rng.uniform(1, 4)
        power = card.work(start_s, end_s, seed)
        phase = ("warmup", card.ns(start_s), card.ns(end_s))
        samples = card.record(power, card.H100, end_s + 6, name="NVIDIA H100 80GB HBM3")
        result = account(samples, (card.ns(end_s + 2), card.ns(end_s + 5)), [phase])
        (energy,) = result.phases
        assert energy.energy_j is not None
        assert energy.u95_j is not None
        off_j = abs(energy.energy_j - float(power.energy(start_s, end_s)))
        covered.append(off_j <= energy.u95_j)
    assert np.mean(covered) >= 0.95
