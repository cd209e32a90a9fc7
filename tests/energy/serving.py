"""Batches of an engine whose every step draws a known power."""

from collections.abc import Sequence

import numpy as np

from energy.metering import KEY, window_ns
from llenergymeasure.energy.account import Account, account
from llenergymeasure.energy.batches import Batch
from llenergymeasure.energy.prefill_decode import NoSplit, TokenEnergy, split_energy
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

REQUESTS, STEP_S, START_S = 8, 1 / 80, 2.0
PREFILL_W, DECODE_W, GAP_W, REST_W = 640.0, 380.0, 140.0, 95.0
COUNTER = card.info(quantities=("energy_counter_j",))

Lengths = tuple[np.ndarray, np.ndarray]
"""Tokens into and out of each request of a batch."""


def alike(into: int, out: int) -> Lengths:
    """A batch whose requests are all the same; ``out`` tokens follow the first."""
    return np.full(REQUESTS, into), np.full(REQUESTS, out + 1)


def random_alike(count: int, seed: int) -> list[Lengths]:
    rng = np.random.default_rng(seed)
    return [alike(int(rng.integers(64, 1025)), int(rng.integers(16, 257))) for _ in range(count)]


def random_unlike(count: int, seed: int) -> list[Lengths]:
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(64, 1025, REQUESTS), rng.integers(2, 257, REQUESTS)) for _ in range(count)
    ]


class Served:
    """Batches one after the other; a step's energy belongs to those that get a token in it.

    Args:
        lengths: of each batch.
        floor_s: what each prefill takes without any token.
        growth, longer: by what share of itself decode's power, and a step, grows in a second.
        fewer: share of decode's power that goes when all requests but one have ended.
        uneven: how far batches differ in power.
        gap_s: between two batches.

    Attributes:
        prefill_j, decode_j: of a token.
        true_j: of each request; the gaps' is shared out among them.
    """

    def __init__(
        self, lengths: Sequence[Lengths], floor_s=0.0, growth=0.0, longer=0.0, fewer=0.0,
        uneven=0.0, gap_s=0.0,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(len(lengths))
        edges_s, levels_w, t_s = [-10.0], [REST_W], START_S
        joules, tokens, true_j = np.zeros(2), np.zeros(2), []
        self.batches: list[Batch] = []
        for into, out in lengths:
            level = 1 + uneven * rng.uniform(-1, 1)
            step = np.arange(out.max() - 1)
            works = out[:, None] - 1 > step
            steps_w = DECODE_W * level * (1 + growth * step * STEP_S)
            steps_w = np.append(PREFILL_W * level, steps_w * (1 - fewer * (1 - works.mean(axis=0))))
            steps_s = np.append(
                floor_s + into.sum() / 40_000, STEP_S * (1 + longer * step * STEP_S)
            )
            ends_s, steps_j = t_s + np.cumsum(steps_s), steps_w * steps_s
            own_j = steps_j[0] * into / into.sum() + (works / works.sum(axis=0)) @ steps_j[1:]
            joules += steps_j[0], steps_j[1:].sum()
            tokens += into.sum(), (out - 1).sum()
            true_j.append(own_j)
            self.batches.append(
                Batch(
                    card.ns(t_s),
                    card.ns(ends_s[-1]),
                    (card.ns(ends_s[0]), card.ns(ends_s[0])),
                    int(into.sum()),
                    int(out.sum()),
                    REQUESTS,
                    lengths=tuple(zip(into.tolist(), out.tolist(), strict=True)),
                    steps_ns=tuple(map(card.ns, ends_s)),
                )
            )
            edges_s += [t_s, *ends_s]
            levels_w += [*steps_w, GAP_W]
            t_s = ends_s[-1] + gap_s
        self.end_s = edges_s[-1]
        levels_w[-1] = REST_W
        self.power = card.Power(edges_s, levels_w)
        self.prefill_j, self.decode_j = joules / tokens
        self.true_j = np.concatenate(true_j)
        self.true_j *= float(self.power.energy(START_S, self.end_s)) / self.true_j.sum()

    def account(self, sensor: card.Sensor = card.H100, counter: str = "independent") -> Account:
        """Meter the batches with a card that has a counter and no readings."""
        samples = card.recording(card.counter_rows(self.power, sensor, self.end_s + 1), COUNTER)
        return account(
            samples,
            window_ns(START_S, self.end_s),
            card.margins(START_S, self.end_s),
            behaviours={KEY: Behaviour(counter, 0.1)},
        )


def split_of(account: Account, batches: list[Batch]) -> TokenEnergy | NoSplit:
    return split_energy([source.channel for source in account.headline_sources], batches)
