"""What a server draws between the turns of agents, on a card of known power."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llenergymeasure.energy.account import Account, account
from llenergymeasure.results.serving import Gaps
from llenergymeasure.run.result.between_requests import gap_energy
from llenergymeasure.run.result.offered_load import InFlight
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

BUSY_W, IDLE_W = 420.0, 90.0
START_S, END_S = 5.0, 65.0
WINDOW = (card.ns(START_S), card.ns(END_S))


class Agents:
    """Sessions of turns with tools between them; the card works while any request is under way."""

    def __init__(
        self, seed: int, sessions: int, turns: int = 200, begin_s: float = 0.0, uneven: float = 0.0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.turns = turns
        self.rows, busy = [], []
        for session in range(sessions):
            t_s = begin_s + float(rng.uniform(0, 2))
            for turn in range(turns):
                end_s = t_s + float(rng.uniform(0.3, 1.5))
                if end_s > END_S + 5:
                    break
                self.rows.append(
                    {
                        "conversation": session,
                        "turn": turn,
                        "planned_monotonic_ns": card.ns(t_s),
                        "end_monotonic_ns": card.ns(end_s),
                        "failure": None,
                    }
                )
                busy.append((t_s, end_s))
                t_s = end_s + float(rng.exponential(1.5))
        edges_s = np.unique(np.concatenate(([-10.0], np.ravel(busy))))
        self.busy = [any(a <= edge < b for a, b in busy) for edge in edges_s]
        idle_w = IDLE_W * (1 + uneven * rng.uniform(-1, 1, len(edges_s)))
        self.power = card.Power(list(edges_s), list(np.where(self.busy, BUSY_W, idle_w)))
        ends_s = np.clip([*edges_s[1:], 200.0], START_S, END_S)
        begins_s = np.clip(edges_s, START_S, END_S)
        lengths_s = np.where(self.busy, 0.0, ends_s - begins_s)
        self.gaps_s, self.gaps_j = float(lengths_s.sum()), float(lengths_s @ idle_w)

    def found(self, sensor: card.Sensor = card.H100) -> Gaps:
        rows = card.counter_rows(self.power, sensor, END_S + 5)
        samples = card.recording(rows, card.info(quantities=("energy_counter_j",)))
        known = {("nvml", card.UUID): Behaviour("independent", 0.1)}
        return self.of(account(samples, WINDOW, behaviours=known))

    def of(self, made: Account) -> Gaps:
        starts = np.array([row["planned_monotonic_ns"] for row in self.rows], dtype=np.int64)
        ends = np.array([row["end_monotonic_ns"] for row in self.rows], dtype=np.int64)
        return gap_energy(
            self.rows, InFlight.from_intervals(starts, ends), WINDOW, made, self.turns
        )


@pytest.mark.parametrize(
    ("sessions", "uneven"), [(1, 0.0), (3, 0.3)], ids=["one steady", "three uneven"]
)
def test_the_energy_of_the_gaps_is_within_its_interval(sessions: int, uneven: float) -> None:
    covered, widths = [], []
    for seed in range(24):
        agents = Agents(seed, sessions, uneven=uneven)
        gaps = agents.found(replace(card.H100, counter_lag_s=0.004 * seed))
        assert gaps.duration_s == pytest.approx(agents.gaps_s, rel=1e-6)
        # All begin before the window, so in each gap a conversation waits for its tool.
        assert gaps.waiting_duration_s == pytest.approx(gaps.duration_s, rel=1e-9)
        assert gaps.waiting_energy_j == pytest.approx(gaps.energy_j)
        covered.append(abs(gaps.energy_j - agents.gaps_j) <= gaps.u95_j)
        widths.append(gaps.u95_j / gaps.energy_j)
    assert np.median(widths) < 0.1
    assert np.mean(covered) >= 0.93


def test_a_gap_in_which_nobody_waits_is_told_from_one_with_a_waiting_cache() -> None:
    agents = Agents(4, 1, turns=3, begin_s=10.0)
    gaps = agents.found()
    pauses_s = [
        (after["planned_monotonic_ns"] - before["end_monotonic_ns"]) / 1e9
        for before, after in zip(agents.rows, agents.rows[1:], strict=False)
    ]
    assert gaps.waiting_duration_s == pytest.approx(sum(pauses_s), rel=1e-6)
    assert gaps.pause_mean_s == pytest.approx(np.mean(pauses_s), rel=1e-6)
    assert gaps.waiting_conversations_mean == pytest.approx(1.0)
    assert gaps.duration_s > 40 > gaps.waiting_duration_s
    assert abs(gaps.waiting_energy_j - IDLE_W * sum(pauses_s)) <= gaps.waiting_u95_j


def users(pause_s: Callable[[], float]) -> list[dict[str, Any]]:
    """Requests of 60 users who pause after each answer, until the window's end."""
    rows = []
    for user in range(60):
        t_s, turn = 0.0, 0
        while t_s < END_S:
            at = {"conversation": user, "turn": turn, "planned_monotonic_ns": card.ns(t_s)}
            rows.append({**at, "end_monotonic_ns": card.ns(t_s + 2), "failure": None})
            t_s, turn = t_s + 2 + pause_s(), turn + 1
    return rows


@pytest.mark.parametrize("mean_s", [3.0, 15.0])
def test_pauses_that_the_end_of_the_traffic_cuts_are_allowed_for(mean_s: float) -> None:
    """Long ones are cut more often: of 15 s, the mean of those that were over is 11 s."""
    rng = np.random.default_rng(1)
    agents = Agents(4, 1)
    agents.rows = users(lambda: float(rng.exponential(mean_s)))
    assert agents.found().pause_mean_s == pytest.approx(mean_s, rel=0.06)
    agents.rows = users(lambda: mean_s)
    assert agents.found().pause_mean_s == pytest.approx(mean_s, rel=1e-9)


def test_without_gaps_or_energy_nothing_is_made_up() -> None:
    agents = Agents(5, 1)
    agents.rows = [
        {
            "conversation": 0,
            "turn": agents.turns - 1,
            "planned_monotonic_ns": card.ns(0),
            "end_monotonic_ns": card.ns(90),
            "failure": None,
        }
    ]
    gaps = agents.found()
    assert (gaps.duration_s, gaps.energy_j, gaps.u95_j) == (0, 0, 0)
    assert gaps.pause_mean_s is gaps.waiting_conversations_mean is None
    nothing = Agents(5, 1).of(account(card.recording([]), WINDOW))
    assert nothing.energy_j is None
    assert "too little" in nothing.unavailable
    assert nothing.duration_s > 0
