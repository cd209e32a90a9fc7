"""Energy of one request of a shared batch, on engines whose every step has a known cost."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from energy.serving import REQUESTS, Served, random_alike, random_unlike, split_of
from llenergymeasure.energy.account import Account
from llenergymeasure.energy.batches import Batch, PartEnergy, batch_energies
from llenergymeasure.energy.request_energy import STEPS_UNKNOWN, request_energies
from llenergymeasure.run.result.batch_requests import group_batches
from support import energy_card as card

PLAIN = {"floor_s": 0.006, "gap_s": 0.005, "growth": 0.05}


def unlike(seed: int, count: int = 20, **engine: Any) -> Served:
    return Served(random_unlike(count, seed), **{**PLAIN, **engine})


def energies_of(account: Account, batches: list[Batch]) -> list[PartEnergy]:
    split = split_of(account, batches)
    energies = batch_energies(account, batches, getattr(split, "lag_s", 0.0))
    by_batch = request_energies(account.total.gross_j, batches, energies, split)
    return [energy for members in by_batch for energy in members]


@pytest.mark.parametrize(
    ("engine", "most_error"),
    [
        ({"growth": 0.1, "gap_s": 0.03}, 0.01),
        ({"longer": 0.05}, 0.005),
        ({"count": 6}, 0.005),
        ({"uneven": 0.1}, 0.01),
        ({"fewer": 0.3}, 0.05),
        ({"fewer": 0.3, "growth": 0.08, "longer": 0.02, "uneven": 0.05}, 0.05),
    ],
    ids=["gaps", "longer", "few", "uneven", "fewer", "all"],
)
def test_a_requests_energy_is_within_its_interval_and_all_add_up(engine, most_error) -> None:
    covered, errors = [], []
    for seed in range(6):
        served = unlike(seed, **engine)
        sensor = replace(card.H100, counter_lag_s=0.018 * seed, counter_phase_s=0.016 * seed)
        result = served.account(sensor)
        requests = energies_of(result, served.batches)
        energy_j = np.array([request.energy_j for request in requests])
        assert float(np.sum(energy_j)) == pytest.approx(result.total.gross_j, rel=1e-12)
        off_j = np.abs(energy_j - served.true_j)
        covered += list(off_j <= [request.u95_j for request in requests])
        errors += list(off_j / served.true_j)
    assert np.mean(covered) >= 0.93
    assert np.quantile(errors, 0.95) < most_error


def blind_batches() -> tuple[Served, list[Batch]]:
    """Batches of like requests, by an engine that does not say when its steps were."""
    served = Served(random_alike(6, 1), **PLAIN)
    return served, [replace(batch, steps_ns=()) for batch in served.batches]


def test_requests_that_are_alike_have_the_same_part_however_the_steps_went() -> None:
    served, blind = blind_batches()
    requests = energies_of(served.account(), blind)
    assert requests[0].energy_j == pytest.approx(requests[7].energy_j, rel=1e-12)
    for request, true_j in zip(requests, served.true_j, strict=True):
        assert request.unavailable is None
        assert abs(request.energy_j - true_j) <= request.u95_j


def test_a_preempted_request_has_not_the_same_part_as_others_of_its_length() -> None:
    served, blind = blind_batches()
    before_ns = blind[0].end_ns - (blind[0].end_ns - blind[0].start_ns) // 10
    blind[0] = replace(blind[0], first_end_ns=before_ns)
    reasons = [request.unavailable for request in energies_of(served.account(), blind)]
    assert reasons == [STEPS_UNKNOWN] * REQUESTS + [None] * (5 * REQUESTS)


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
    served = unlike(2)
    result = served.account()

    def reasons(batches: list[Batch], account_: Account = result) -> set[str | None]:
        requests = energies_of(account_, batches)
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
    (sums,) = reasons(served.batches, served.account(counter="sum"))
    assert "sees all of the time" in sums


def test_a_batch_without_energy_leaves_the_others_theirs() -> None:
    served = unlike(3)
    late = replace(served.batches[-1], start_ns=card.ns(900.0), end_ns=card.ns(901.0))
    result = served.account()
    batches = [*served.batches[:-1], replace(late, lengths=((5, 5),) * REQUESTS)]
    split = split_of(result, served.batches)
    requests = request_energies(
        result.total.gross_j, batches, batch_energies(result, batches), split
    )
    assert "does not cover" in requests[-1][0].unavailable
    assert all(request.energy_j is not None for members in requests[:-1] for request in members)
    assert request_energies(None, [], [], None) == ()
