"""Energy of batches, prefill and decode told apart, and energy in other units."""

from dataclasses import replace

import numpy as np
import pytest

from energy.serving import REQUESTS, Served, alike, random_alike, split_of
from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.batches import Batch, batch_energies
from llenergymeasure.energy.footprint import SiteFactors, footprint, per_1000_requests_wh
from llenergymeasure.energy.prefill_decode import POOR_FIT, NoSplit, TokenEnergy
from support import energy_card as card


def split(served: Served, sensor: card.Sensor = card.H100) -> TokenEnergy | NoSplit:
    return split_of(served.account(sensor), served.batches)


def erratic(served: Served, seed: int, step_s: float) -> Served:
    """The same batches, of a card that draws what it likes."""
    edges_s = np.arange(0.0, served.end_s, step_s)
    watts = np.random.default_rng(seed).uniform(100, 650, len(edges_s))
    served.power = card.Power(edges_s.tolist(), watts.tolist())
    return served


@pytest.mark.parametrize("count", [10, 40])
@pytest.mark.parametrize(
    "load",
    [
        {},
        {"floor_s": 0.006},
        {"floor_s": 0.006, "gap_s": 0.005},
        {"floor_s": 0.006, "gap_s": 0.005, "growth": 0.08},
    ],
    ids=["ideal", "floor", "gap", "growing"],
)
def test_prefill_and_decode_are_found_and_their_intervals_hold(
    count: int, load: dict[str, float]
) -> None:
    covered = []
    for seed in range(8):
        served = Served(random_alike(count, seed), **load)
        sensor = replace(card.H100, counter_lag_s=0.0125 * seed, counter_phase_s=0.011 * seed)
        found = split(served, sensor)
        assert isinstance(found, TokenEnergy)
        assert found.prefill_j == pytest.approx(served.prefill_j, rel=0.002)
        assert found.decode_j == pytest.approx(served.decode_j, rel=0.0005)
        assert found.prefill_u95_j < 0.01 * found.prefill_j
        assert found.unexplained < POOR_FIT
        covered.append(abs(found.prefill_j - served.prefill_j) <= found.prefill_u95_j)
        covered.append(abs(found.decode_j - served.decode_j) <= found.decode_u95_j)
    assert np.mean(covered) >= 0.93


def test_a_rest_beside_the_work_is_not_taken_for_the_gaps_between() -> None:
    """The card draws 95 W before and after, and 140 W between two batches."""
    served = Served(random_alike(10, 3), gap_s=0.03)
    assert split(served).prefill_j == pytest.approx(served.prefill_j, rel=0.001)


def test_phases_that_hardly_differ_from_step_to_step_cannot_be_told_apart() -> None:
    """Each batch takes just as long as the counter takes from one step to the next."""
    evenly = split(Served([alike(250, 4)] * 60))
    assert isinstance(evenly, NoSplit)
    assert "too evenly" in evenly.reason


def test_a_load_that_draws_what_it_likes_leaves_much_unexplained() -> None:
    assert split(erratic(Served(random_alike(20, 1)), 0, 0.2)).unexplained > POOR_FIT


def test_neither_of_the_two_is_less_than_nothing() -> None:
    """Prefills of a few ms amid a load that draws what it likes are at times fitted below zero."""
    splits = []
    for seed in range(12):
        brief = [alike(16, int(out[0])) for _, out in random_alike(10, seed)]
        splits.append(split(erratic(Served(brief), seed, 0.05)))
    reasons = [each.reason for each in splits if isinstance(each, NoSplit)]
    assert any("less than nothing" in reason for reason in reasons)
    found = [each for each in splits if isinstance(each, TokenEnergy)]
    assert found
    assert all(each.prefill_j > 0 and each.decode_j > 0 for each in found)


def test_what_cannot_be_split_says_why() -> None:
    served = Served(random_alike(10, 0))
    result = served.account()
    batch = served.batches[1]

    def reason(batches: list[Batch], account_: Account = result) -> str:
        refused = split_of(account_, batches)
        assert isinstance(refused, NoSplit)
        return refused.reason

    assert "12 are needed" in reason(Served(random_alike(1, 2)).batches)
    assert "overlap" in reason([*served.batches, batch])
    assert "one moment" in reason([*served.batches[:1], replace(batch, first_token_ns=None)])
    early, late = batch.start_ns + 1000, batch.end_ns - 1000
    assert "one moment" in reason([replace(batch, first_token_ns=(early, late))])
    assert "no tokens" in reason([replace(batch, output_tokens=batch.requests)])
    assert "one moment" in reason([])
    assert "sees all of the time" in reason(served.batches, served.account(counter="sum"))


def test_a_batch_the_sensor_cannot_resolve_has_a_reason_and_no_energy() -> None:
    result = Served([alike(500, 100)] * 4).account()
    brief = Batch(card.ns(4.0), card.ns(4.02), None, 10, 10, 1)
    (energy,) = batch_energies(result, [brief])
    assert energy.energy_j is None
    assert "20 ms are less than the 100 ms" in energy.unavailable
    late = Batch(card.ns(400.0), card.ns(402.0), None, 10, 10, 1)
    assert "does not cover" in batch_energies(result, [late])[0].unavailable


def test_requests_that_overlap_have_no_energy_of_their_own() -> None:
    served = Served([alike(500, 100)] * 4)
    first, second = served.batches[1:3]
    mixed = [*served.batches, Batch(first.start_ns, second.end_ns, None, 1, 1, 1)]
    energies = batch_energies(served.account(), mixed)
    assert {energy.energy_j for energy in energies} == {None}
    assert "overlap" in energies[0].unavailable


def test_energy_in_other_units() -> None:
    site = SiteFactors(grid_gco2e_per_kwh=400.0, pue=1.5, price_per_kwh=0.2)
    assert site.carbon_gco2e(3.6e6) == pytest.approx(600.0)
    assert site.cost(3.6e6) == pytest.approx(0.3)
    assert per_1000_requests_wh(36.0) == pytest.approx(10.0)
    unknown = SiteFactors()
    nothing = unknown.carbon_gco2e(1.0), unknown.cost(1.0), per_1000_requests_wh(None)
    assert nothing == (None, None, None)


def test_the_footprint_of_a_window_is_its_energys() -> None:
    result = account(card.record(card.constant(360.0)), (card.ns(10), card.ns(50)))
    declared = SiteFactors(500.0, 1.25, 0.4, "EUR", "made up")
    impact = footprint(result.energy(requests=100), declared)
    assert impact.energy_site_kwh == pytest.approx(360 * 40 * 1.25 / 3.6e6, rel=1e-3)
    assert impact.carbon_gco2e == pytest.approx(500 * impact.energy_site_kwh)
    assert impact.carbon_per_1000_requests_gco2e == pytest.approx(10 * impact.carbon_gco2e)
    assert impact.cost_per_1000_requests == pytest.approx(4 * impact.energy_site_kwh)
    assert footprint(result.energy(), declared).cost_per_1000_requests is None
    nothing = account(card.recording([]), (card.ns(10), card.ns(50)))
    assert footprint(nothing.energy(), declared) is None


@pytest.mark.parametrize("growth", [0.0, 0.08])
def test_thought_is_the_first_part_of_decode_and_costs_what_decode_costs_then(
    growth: float,
) -> None:
    share, covered = 0.75, []
    for seed in range(8):
        served = Served(random_alike(40, seed), floor_s=0.006, growth=growth)
        sensor = replace(card.H100, counter_lag_s=0.0125 * seed, counter_phase_s=0.011 * seed)
        true_j = 0.0
        batches = []
        for batch in served.batches:
            thinking = REQUESTS + round(share * batch.decoded_tokens)
            batches.append(replace(batch, thinking_tokens=thinking))
            assert batch.prefill_end_ns is not None
            middle_s, end_s = (
                (at - card.T0_NS) / 1e9 for at in (batch.prefill_end_ns, batch.end_ns)
            )
            true_j += float(served.power.energy(middle_s, middle_s + share * (end_s - middle_s)))
        found = split_of(served.account(sensor), batches)
        assert isinstance(found, TokenEnergy)
        decode_j = found.decode_j * sum(batch.decoded_tokens for batch in batches)
        assert found.thinking_j + found.answer_j == pytest.approx(decode_j)
        assert found.thinking_j == pytest.approx(true_j, rel=0.002)
        covered.append(abs(found.thinking_j - true_j) <= found.thinking_u95_j)
    assert np.mean(covered) >= 0.93
