"""Energy of batches, prefill and decode told apart, and energy in other units."""

import numpy as np
import pytest

from llenergymeasure.energy.account import account
from llenergymeasure.energy.batches import Batch, batch_energies, split_energy
from llenergymeasure.energy.footprint import Declared, footprint, per_1000_requests_wh
from llenergymeasure.energy.split import NoSplit, TokenEnergy, split_by_marks, split_by_regression
from support import energy_card as card


def batches(count: int, seed: int, spread_j: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    into, out = rng.integers(100, 4000, count), rng.integers(100, 4000, count)
    energy_j = 0.02 * into + 0.3 * out + rng.normal(0, spread_j, count)
    return energy_j, np.full(count, 1.96 * 5.0), into, out


def test_regression_finds_both_and_its_error_holds() -> None:
    inside = 0
    for seed in range(200):
        found = split_by_regression(*batches(20, seed, 5.0))
        assert isinstance(found, TokenEnergy)
        inside += abs(found.decode_j - 0.3) <= found.decode_u95_j
        inside += abs(found.prefill_j - 0.02) <= found.prefill_u95_j
    assert inside / 400 >= 0.93


def test_scatter_beyond_the_intervals_widens_the_error() -> None:
    calm, wild = (split_by_regression(*batches(20, 3, spread)) for spread in (5.0, 50.0))
    assert wild.decode_u95_j > 4 * calm.decode_u95_j


def test_batches_that_are_alike_cannot_be_split() -> None:
    same = split_by_regression([10.0] * 6, [0.1] * 6, [128] * 6, [64] * 6)
    assert isinstance(same, NoSplit)
    assert "alike" in same.reason
    few = split_by_regression([1.0, 2.0], [0.1, 0.1], [1, 2], [2, 1])
    assert isinstance(few, NoSplit)
    none = split_by_regression([1.0] * 5, [0.1] * 5, [0] * 5, [1, 2, 3, 4, 5])
    assert isinstance(none, NoSplit)


def test_marks_split_the_energy_as_it_was_drawn() -> None:
    power = card.Power([-10, 10, 14, 30, 34, 50], [60, 400, 200, 400, 200, 60])
    made = account(card.record(power), (card.ns(10), card.ns(50)))
    spans = [[(card.ns(a), card.ns(b)) for a, b in part] for part in (
        [(10, 14), (30, 34)], [(14, 30), (34, 50)],
    )]  # fmt: skip
    found = split_by_marks(made, *spans, input_tokens=1000, output_tokens=500)
    assert isinstance(found, TokenEnergy)
    assert found.prefill_j == pytest.approx(3200 / 1000, rel=0.01)
    assert found.decode_j == pytest.approx(6400 / 500, rel=0.01)
    assert found.prefill_u95_j > 0


def test_without_marks_there_is_no_split() -> None:
    made = account(card.record(card.constant(200.0)), (card.ns(10), card.ns(50)))
    assert isinstance(split_by_marks(made, [], [], 10, 10), NoSplit)
    outside = [(card.ns(100), card.ns(110))]
    assert isinstance(split_by_marks(made, outside, outside, 10, 10), NoSplit)


def serve(lengths: list[tuple[int, int]]) -> tuple[card.Power, list[Batch]]:
    """A load that takes 400 W to read 1,000 tokens/s and 200 W to write 100 tokens/s."""
    edges, levels, found, t_s = [-10.0, 2.0], [60.0, 60.0], [], 3.0
    for into, out in lengths:
        mid_s, end_s = t_s + into / 1000, t_s + into / 1000 + out / 100
        edges += [t_s, mid_s]
        levels += [400.0, 200.0]
        moment = (card.ns(mid_s), card.ns(mid_s))
        found.append(Batch(card.ns(t_s), card.ns(end_s), moment, into, out + 4, 4))
        t_s = end_s
    return card.Power([*edges, t_s], [*levels, 60.0]), found


def served(lengths: list[tuple[int, int]]):
    power, found = serve(lengths)
    end_s = float(power.edges_s[-1]) + 3
    made = account(card.record(power, end_s=end_s), (found[0].start_ns, found[-1].end_ns))
    return made, power, found


def test_every_batch_has_its_energy_within_its_interval() -> None:
    rng = np.random.default_rng(4)
    made, power, found = served([(int(a), int(b)) for a, b in rng.integers(50, 300, (30, 2))])
    energies = batch_energies(made, found)
    for batch, energy in zip(found, energies, strict=True):
        start_s, end_s = ((t - card.T0_NS) / 1e9 for t in (batch.start_ns, batch.end_ns))
        assert abs(energy.energy_j - float(power.energy(start_s, end_s))) <= energy.u95_j
    assert sum(each.energy_j for each in energies) == pytest.approx(made.total.gross_j, rel=1e-6)


def test_a_batch_the_sensor_cannot_resolve_has_a_reason_and_no_energy() -> None:
    made, _, _ = served([(500, 100)] * 4)
    short = Batch(card.ns(4.0), card.ns(4.02), None, 10, 10, 1)
    (energy,) = batch_energies(made, [short])
    assert energy.energy_j is None
    assert "20 ms are less than the 100 ms" in energy.unavailable
    late = Batch(card.ns(400.0), card.ns(402.0), None, 10, 10, 1)
    assert "does not cover" in batch_energies(made, [late])[0].unavailable


def test_requests_that_overlap_have_no_energy_of_their_own() -> None:
    made, _, found = served([(500, 100)] * 4)
    mixed = [*found, Batch(found[1].start_ns, found[2].end_ns, None, 1, 1, 1)]
    energies = batch_energies(made, mixed)
    assert {each.energy_j for each in energies} == {None}
    assert "overlap" in energies[0].unavailable
    assert "overlap" in split_energy(made, mixed, energies).reason


def test_long_phases_are_split_by_their_marks() -> None:
    made, _, found = served([(1511 + 37 * i, 403 + 29 * i) for i in range(8)])
    split = split_energy(made, found, batch_energies(made, found))
    assert isinstance(split, TokenEnergy)
    assert split.method == "marks"
    assert abs(split.prefill_j - 0.4) <= split.prefill_u95_j
    assert abs(split.decode_j - 2.0) <= split.decode_u95_j
    assert split.prefill_u95_j < 0.1


def test_short_prefills_are_split_by_the_batches_lengths() -> None:
    rng = np.random.default_rng(5)
    made, _, found = served([(int(a), int(b)) for a, b in rng.integers(20, 900, (40, 2))])
    split = split_energy(made, found, batch_energies(made, found))
    assert isinstance(split, TokenEnergy)
    assert split.method == "regression"
    assert abs(split.prefill_j - 0.4) <= split.prefill_u95_j
    assert abs(split.decode_j - 2.0) <= split.decode_u95_j


def test_what_cannot_be_split_says_why_both_ways() -> None:
    made, _, found = served([(50, 20)] * 30)
    split = split_energy(made, found, batch_energies(made, found))
    assert isinstance(split, NoSplit)
    assert "by marks: a phase lasts 50 ms" in split.reason
    assert "by regression" in split.reason


def test_energy_in_other_units() -> None:
    site = Declared(grid_gco2e_per_kwh=400.0, pue=1.5, price_per_kwh=0.2)
    assert site.carbon_gco2e(3.6e6) == pytest.approx(600.0)
    assert site.cost(3.6e6) == pytest.approx(0.3)
    assert per_1000_requests_wh(36.0) == pytest.approx(10.0)


def test_what_was_not_declared_is_not_made_up() -> None:
    assert Declared().carbon_gco2e(1.0) is None
    assert Declared().cost(1.0) is None
    assert per_1000_requests_wh(None) is None


def test_the_footprint_of_a_window_is_its_energys() -> None:
    made = account(card.record(card.constant(360.0)), (card.ns(10), card.ns(50)))
    declared = Declared(500.0, 1.25, 0.4, "EUR", "made up")
    found = footprint(made.energy(requests=100), declared)
    assert found.energy_site_kwh == pytest.approx(360 * 40 * 1.25 / 3.6e6, rel=1e-3)
    assert found.carbon_gco2e == pytest.approx(500 * found.energy_site_kwh)
    assert found.carbon_per_1000_requests_gco2e == pytest.approx(10 * found.carbon_gco2e)
    assert found.cost_per_1000_requests == pytest.approx(4 * found.energy_site_kwh)
    assert footprint(made.energy(), declared).cost_per_1000_requests is None
    nothing = account(card.recording([]), (card.ns(10), card.ns(50)))
    assert footprint(nothing.energy(), declared) is None
