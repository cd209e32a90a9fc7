"""Energy of one request of a shared batch, on engines whose every step has a known cost."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.batches import Batch, PartEnergy, batch_energies
from llenergymeasure.energy.prefill_decode import NoSplit, TokenEnergy, split_energy
from llenergymeasure.energy.request_energy import STEPS_UNKNOWN, request_energies
from llenergymeasure.run.result.batch_requests import group_batches
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

REQUESTS, STEP_S, START_S = 8, 1 / 80, 2.0
PREFILL_W, DECODE_W, GAP_W, REST_W = 640.0, 380.0, 140.0, 95.0


class SharedBatches:
    """Batches of unlike requests; a step's energy belongs to those that get a token in it.

    Args:
        seed: of the lengths.
        batches: how many.
        growth, longer: by what share of itself decode's power, and a step, grows in a second.
        fewer: share of decode's power that goes when all requests but one have ended.
        uneven: how far batches differ in power.
        gap_s: between two batches.
        alike: whether all requests of a batch are.
    """

    def __init__(
        self, seed, batches=20, growth=0.05, longer=0.0, fewer=0.0, uneven=0.0, gap_s=0.005,
        alike=False,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        edges_s, levels_w, t_s = [-10.0], [REST_W], START_S
        self.batches: list[Batch] = []
        true_j: list[np.ndarray] = []
        for _ in range(batches):
            size = 1 if alike else REQUESTS
            prompts = np.resize(rng.integers(64, 1025, size), REQUESTS)
            answers = np.resize(rng.integers(2, 257, size), REQUESTS)
            level = 1 + uneven * rng.uniform(-1, 1)
            start_s, prefill_s = t_s, 0.006 + prompts.sum() / 40_000
            own_j = PREFILL_W * level * prefill_s * prompts / prompts.sum()
            edges_s.append(t_s)
            levels_w.append(PREFILL_W * level)
            t_s += prefill_s
            ends_s = [t_s]
            for step in range(answers.max() - 1):
                working = answers - 1 > step
                power_w = DECODE_W * level * (1 + growth * step * STEP_S)
                power_w *= 1 - fewer * (1 - working.mean())
                step_s = STEP_S * (1 + longer * step * STEP_S)
                own_j = own_j + power_w * step_s * working / working.sum()
                edges_s.append(t_s)
                levels_w.append(power_w)
                t_s += step_s
                ends_s.append(t_s)
            true_j.append(own_j)
            self.batches.append(
                Batch(
                    card.ns(start_s),
                    card.ns(t_s),
                    (card.ns(ends_s[0]), card.ns(ends_s[0])),
                    int(prompts.sum()),
                    int(answers.sum()),
                    REQUESTS,
                    lengths=tuple(zip(prompts.tolist(), answers.tolist(), strict=True)),
                    steps_ns=tuple(map(card.ns, ends_s)),
                )
            )
            edges_s.append(t_s)
            levels_w.append(GAP_W)
            t_s += gap_s
        self.end_s = edges_s[-1]
        levels_w[-1] = REST_W
        self.power = card.Power(edges_s, levels_w)
        of_all_j = np.concatenate(true_j)
        self.true_j = of_all_j * float(self.power.energy(START_S, self.end_s)) / of_all_j.sum()

    def account(self, sensor: card.Sensor = card.H100, nature: str = "independent") -> Account:
        rows = card.counter_rows(self.power, sensor, self.end_s + 1)
        return account(
            card.recording(rows, card.info(quantities=("energy_counter_j",))),
            (card.ns(START_S), card.ns(self.end_s)),
            card.margins(START_S, self.end_s),
            behaviours={("nvml", card.UUID): Behaviour(nature, 0.1)},
        )


def energies_of(
    account: Account, batches: list[Batch]
) -> tuple[list[PartEnergy], TokenEnergy | NoSplit]:
    split = split_energy([energy.channel for energy in account.headline_sources], batches)
    energies = batch_energies(account, batches, getattr(split, "lag_s", 0.0))
    by_batch = request_energies(account.total.gross_j, batches, energies, split)
    return [energy for members in by_batch for energy in members], split


@pytest.mark.parametrize(
    ("engine", "most_error"),
    [
        ({}, 0.005),
        ({"growth": 0.1, "gap_s": 0.03}, 0.01),
        ({"longer": 0.05}, 0.005),
        ({"batches": 6}, 0.005),
        ({"uneven": 0.1}, 0.01),
        ({"fewer": 0.3}, 0.05),
        ({"fewer": 0.3, "growth": 0.08, "longer": 0.02, "uneven": 0.05}, 0.05),
    ],
    ids=["plain", "gaps", "longer", "few", "uneven", "fewer", "all"],
)
def test_a_requests_energy_is_within_its_interval_and_all_add_up(engine, most_error) -> None:
    covered, errors = [], []
    for seed in range(8):
        served = SharedBatches(seed, **engine)
        sensor = replace(card.H100, counter_lag_s=0.0125 * seed, counter_phase_s=0.011 * seed)
        result = served.account(sensor)
        requests, _ = energies_of(result, served.batches)
        energy_j = np.array([request.energy_j for request in requests])
        assert float(np.sum(energy_j)) == pytest.approx(result.total.gross_j, rel=1e-12)
        off_j = np.abs(energy_j - served.true_j)
        covered += list(off_j <= [request.u95_j for request in requests])
        errors += list(off_j / served.true_j)
    assert np.mean(covered) >= 0.93
    assert np.quantile(errors, 0.95) < most_error


def test_requests_that_are_alike_have_the_same_part_however_the_steps_went() -> None:
    served = SharedBatches(1, batches=6, alike=True)
    blind = [replace(batch, steps_ns=()) for batch in served.batches]
    requests, _ = energies_of(served.account(), blind)
    assert [request.unavailable for request in requests] == [None] * len(requests)
    assert requests[0].energy_j == pytest.approx(requests[7].energy_j, rel=1e-12)
    off_j = [abs(request.energy_j - j) for request, j in zip(requests, served.true_j, strict=True)]
    assert all(off <= request.u95_j for off, request in zip(off_j, requests, strict=True))


def test_a_preempted_request_has_not_the_same_part_as_others_of_its_length() -> None:
    served = SharedBatches(1, batches=6, alike=True)
    blind = [replace(batch, steps_ns=()) for batch in served.batches]
    before_ns = blind[0].end_ns - (blind[0].end_ns - blind[0].start_ns) // 10
    blind[0] = replace(blind[0], first_end_ns=before_ns)
    requests, _ = energies_of(served.account(), blind)
    assert [request.unavailable for request in requests[:REQUESTS]] == [STEPS_UNKNOWN] * REQUESTS
    assert [request.unavailable for request in requests[REQUESTS:]] == [None] * (5 * REQUESTS)


def test_a_batch_knows_from_its_requests_whether_they_ended_at_once() -> None:
    def has_like_requests(last_end_ns: int) -> bool:
        row = {
            "batch": 0,
            "input_tokens": 8,
            "output_tokens": 4,
            "start_monotonic_ns": 0,
            "first_token_monotonic_ns": 100,
        }
        ends_ns = (1000, last_end_ns)
        table = pa.Table.from_pylist([row | {"end_monotonic_ns": end_ns} for end_ns in ends_ns])
        (batch,) = group_batches(table)
        return batch.has_like_requests

    assert has_like_requests(1005)
    assert not has_like_requests(1500)


def test_what_an_engine_does_not_say_is_not_made_up() -> None:
    served = SharedBatches(2)
    result = served.account()

    def reasons(batches: list[Batch], account_: Account = result) -> set[str | None]:
        requests, _ = energies_of(account_, batches)
        assert all(request.energy_j is None for request in requests)
        return {request.unavailable for request in requests}

    silent = [replace(batch, steps_ns=()) for batch in served.batches]
    assert reasons(silent) == {STEPS_UNKNOWN}
    several = [replace(batch, steps_ns=batch.steps_ns[::2]) for batch in served.batches]
    assert reasons(several) == {STEPS_UNKNOWN}
    by_itself = [replace(batch, first_token_ns=(batch.start_ns, batch.end_ns)) for batch in silent]
    assert reasons(by_itself) == {STEPS_UNKNOWN}
    (overlapping,) = reasons([*served.batches, served.batches[0]])
    assert "overlap" in overlapping
    (sums,) = reasons(served.batches, served.account(nature="sum"))
    assert "sees all of the time" in sums


def test_a_batch_without_energy_leaves_the_others_theirs() -> None:
    served = SharedBatches(3)
    late = replace(served.batches[-1], start_ns=card.ns(900.0), end_ns=card.ns(901.0))
    result = served.account()
    batches = [*served.batches[:-1], replace(late, lengths=((5, 5),) * REQUESTS)]
    split = split_energy([request.channel for request in result.headline_sources], served.batches)
    requests = request_energies(
        result.total.gross_j, batches, batch_energies(result, batches), split
    )
    assert "does not cover" in requests[-1][0].unavailable
    assert all(request.energy_j is not None for members in requests[:-1] for request in members)
    assert request_energies(None, [], [], None) == ()
