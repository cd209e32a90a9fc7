"""Energy of batches whose pauses are shorter than a counter's step."""

from dataclasses import replace

import numpy as np
import pytest

from energy.metering import at_any_phase, metered
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
        sensor = at_any_phase(replace(card.H100, call_s=0.0005), np.random.default_rng(seed))
        window = metered(power, sensor, (3.0, marks_s[-1][2]), margins=False)
        batches = [
            Batch(card.ns(a_s), card.ns(c_s), (card.ns(b_s), card.ns(b_s)), 10, 10, 1)
            for a_s, b_s, c_s in marks_s
        ]
        energies = batch_energies(window.result, batches)
        for (start_s, _, stop_s), energy in zip(marks_s, energies, strict=True):
            true_j = float(power.energy(start_s, stop_s))
            assert energy.energy_j is not None
            assert energy.u95_j is not None
            covered.append(abs(energy.energy_j - true_j) <= energy.u95_j)
            widths.append(energy.u95_j / true_j)
            errors.append(abs(energy.energy_j - true_j) / true_j)
    assert np.mean(covered) >= 0.95
    assert np.median(widths) < 0.05
    assert np.quantile(errors, 0.95) < 0.06
