"""Energy of batches, prefill and decode told apart, and energy in other units."""

from dataclasses import replace

import numpy as np
import pytest

from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.batches import Batch, batch_energies
from llenergymeasure.energy.footprint import SiteFactors, footprint, per_1000_requests_wh
from llenergymeasure.energy.prefill_decode import POOR_FIT, NoSplit, TokenEnergy, split_energy
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

REQUESTS = 8
PREFILL_W, DECODE_W, GAP_W, REST_W = 640.0, 380.0, 140.0, 95.0
SLICE_S = 0.02


class Served:
    """Batches whose phases draw known powers."""

    def __init__(
        self, lengths: list[tuple[int, int]], floor_s=0.0, gap_s=0.0, growth=0.0, start_s=2.0
    ) -> None:
        edges_s, levels_w, t_s = [-10.0], [REST_W], start_s
        self.batches: list[Batch] = []
        joules, tokens = np.zeros(2), np.zeros(2)
        for into, out in lengths:
            middle_s = t_s + floor_s + into * REQUESTS / 40_000
            count = max(round(out / 80 / SLICE_S), 1)
            step_s = out / 80 / count
            decode_w = DECODE_W * (1 + growth * step_s * (np.arange(count) + 0.5))
            edges_s += [t_s, *(middle_s + step_s * np.arange(count))]
            levels_w += [PREFILL_W, *decode_w]
            joules += PREFILL_W * (middle_s - t_s), float(decode_w.sum()) * step_s
            tokens += into * REQUESTS, out * REQUESTS
            end_s = middle_s + out / 80
            mark = (card.ns(middle_s), card.ns(middle_s))
            self.batches.append(
                Batch(
                    card.ns(t_s), card.ns(end_s), mark,
                    into * REQUESTS, (out + 1) * REQUESTS, REQUESTS,
                )
            )  # fmt: skip
            edges_s.append(end_s)
            levels_w.append(GAP_W if gap_s else PREFILL_W)
            t_s = end_s + gap_s
        levels_w[-1] = REST_W
        self.power = card.Power(edges_s, levels_w)
        self.prefill_j, self.decode_j = joules / tokens
        self.start_s, self.end_s = start_s, edges_s[-1]

    def account(self, sensor: card.Sensor = card.H100, known: Behaviour | None = None) -> Account:
        rows = card.counter_rows(self.power, sensor, self.end_s + 1)
        samples = card.recording(rows, card.info(quantities=("energy_counter_j",)))
        window = (card.ns(self.start_s), card.ns(self.end_s))
        behaviour = known or Behaviour("independent", 0.1)
        return account(samples, window, behaviours={("nvml", card.UUID): behaviour})

    def split(self, sensor: card.Sensor = card.H100) -> TokenEnergy | NoSplit:
        return split_of(self.account(sensor), self.batches)


def split_of(account: Account, batches: list[Batch]) -> TokenEnergy | NoSplit:
    return split_energy([source.channel for source in account.headline_sources], batches)


def lengths(count: int, seed: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [(int(rng.integers(64, 1025)), int(rng.integers(16, 257))) for _ in range(count)]


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
        served = Served(lengths(count, seed), **load)
        lag_s = 0.0125 * seed
        sensor = replace(card.H100, counter_lag_s=lag_s, counter_phase_s=0.011 * seed)
        split = served.split(sensor)
        assert isinstance(split, TokenEnergy)
        assert split.prefill_j == pytest.approx(served.prefill_j, rel=0.002)
        assert split.decode_j == pytest.approx(served.decode_j, rel=0.0005)
        assert split.prefill_u95_j < 0.01 * split.prefill_j
        assert split.unexplained < POOR_FIT
        covered.append(abs(split.prefill_j - served.prefill_j) <= split.prefill_u95_j)
        covered.append(abs(split.decode_j - served.decode_j) <= split.decode_u95_j)
    assert np.mean(covered) >= 0.93


def test_a_rest_beside_the_work_is_not_taken_for_the_gaps_between() -> None:
    """The card draws 95 W before and after, and 140 W between two batches."""
    served = Served(lengths(10, 3), gap_s=0.03)
    assert served.split().prefill_j == pytest.approx(served.prefill_j, rel=0.001)


def test_phases_that_hardly_differ_from_step_to_step_cannot_be_told_apart() -> None:
    """Each batch takes just as long as the counter takes from one step to the next."""
    served = Served([(250, 4)] * 60)
    split = served.split()
    assert isinstance(split, NoSplit)
    assert "too evenly" in split.reason


def test_a_load_that_draws_what_it_likes_leaves_much_unexplained() -> None:
    served = Served(lengths(20, 1))
    rng = np.random.default_rng(0)
    levels_w = np.where(rng.uniform(0, 1, len(served.power.levels_w)) < 0.5, 100.0, 650.0)
    served.power = card.Power(served.power.edges_s, levels_w)
    assert served.split().unexplained > POOR_FIT


def test_neither_of_the_two_is_less_than_nothing() -> None:
    """Prefills of a few ms amid a load that draws what it likes are at times fitted below zero."""
    splits = []
    for seed in range(12):
        served = Served([(16, out) for _, out in lengths(10, seed)])
        rng = np.random.default_rng(seed)
        times_s = np.arange(0.0, served.end_s, 0.05)
        served.power = card.Power(list(times_s), list(rng.uniform(100, 600, len(times_s))))
        splits.append(served.split())
    reasons = [split.reason for split in splits if isinstance(split, NoSplit)]
    assert any("less than nothing" in reason for reason in reasons)
    assert len(reasons) < len(splits)
    energies_j = [
        (split.prefill_j, split.decode_j) for split in splits if isinstance(split, TokenEnergy)
    ]
    assert np.min(energies_j) > 0


def test_what_cannot_be_split_says_why() -> None:
    served = Served(lengths(10, 0))
    result = served.account()
    batch = served.batches[1]

    def reason(batches: list[Batch], account_: Account = result) -> str:
        split = split_of(account_, batches)
        assert isinstance(split, NoSplit)
        return split.reason

    assert "12 are needed" in reason(Served(lengths(1, 2)).batches)
    assert "overlap" in reason([*served.batches, batch])
    assert "one moment" in reason([*served.batches[:1], replace(batch, first_token_ns=None)])
    early, late = batch.start_ns + 1000, batch.end_ns - 1000
    assert "one moment" in reason([replace(batch, first_token_ns=(early, late))])
    assert "no tokens" in reason([replace(batch, output_tokens=batch.requests)])
    assert "one moment" in reason([])
    sums = served.account(known=Behaviour("sum", 0.1))
    assert "sees all of the time" in reason(served.batches, sums)


def test_a_batch_the_sensor_cannot_resolve_has_a_reason_and_no_energy() -> None:
    result = Served([(500, 100)] * 4).account()
    brief = Batch(card.ns(4.0), card.ns(4.02), None, 10, 10, 1)
    (energy,) = batch_energies(result, [brief])
    assert energy.energy_j is None
    assert "20 ms are less than the 100 ms" in energy.unavailable
    late = Batch(card.ns(400.0), card.ns(402.0), None, 10, 10, 1)
    assert "does not cover" in batch_energies(result, [late])[0].unavailable


def test_requests_that_overlap_have_no_energy_of_their_own() -> None:
    served = Served([(500, 100)] * 4)
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


def test_what_was_not_declared_is_not_made_up() -> None:
    assert SiteFactors().carbon_gco2e(1.0) is None
    assert SiteFactors().cost(1.0) is None
    assert per_1000_requests_wh(None) is None


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
        served = Served(lengths(40, seed), floor_s=0.006, growth=growth)
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
        split = split_of(served.account(sensor), batches)
        assert isinstance(split, TokenEnergy)
        decode_j = split.decode_j * sum(batch.decoded_tokens for batch in batches)
        assert split.thinking_j + split.answer_j == pytest.approx(decode_j)
        assert split.thinking_j == pytest.approx(true_j, rel=0.002)
        covered.append(abs(split.thinking_j - true_j) <= split.thinking_u95_j)
    assert np.mean(covered) >= 0.93
