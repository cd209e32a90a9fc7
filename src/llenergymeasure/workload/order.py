"""Which prompts of a data set are taken, and in what order batches are cut from them.

The order never changes which prompts are taken: studies that sweep it compare the same work.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from llenergymeasure.config.experiment import DatasetOrder
from llenergymeasure.workload.datasets.record import Record


def choose(records: Sequence[Record], n: int) -> list[Record]:
    """Return ``n`` records, from all sources in turn; from the start again when they run out."""
    taken = take_turns(records)
    return [taken[index % len(taken)] for index in range(n)]


def take_turns(records: Sequence[Record]) -> list[Record]:
    """Return the first of each source, then the second of each, and so on."""
    taken: Counter[str] = Counter()
    turns = []
    for record in records:
        turns.append(taken[record.source])
        taken[record.source] += 1
    rank = {source: place for place, source in enumerate(taken)}
    positions = sorted(
        range(len(records)), key=lambda position: (turns[position], rank[records[position].source])
    )
    return [records[position] for position in positions]


def ordered(
    records: Sequence[Record], lengths: Sequence[int], order: DatasetOrder, seed: int
) -> list[int]:
    """Return the positions of ``records`` in the wanted order.

    - ``interleaved``: sources take turns (as :func:`choose` left them);
    - ``grouped``: source after source, in the order in which they first come;
    - ``shuffled``: at random, by ``seed``;
    - ``given``: by row of the data set;
    - ``length``: by rising number of tokens, so that batches hold little padding.
    """
    positions = list(range(len(records)))
    if order == "interleaved":
        return positions
    if order == "shuffled":
        # By random keys from the raw stream, which NumPy keeps the same in every release.
        keys = np.random.PCG64(seed).random_raw(len(positions)).tolist()
        return sorted(positions, key=lambda position: keys[position])
    if order == "length":
        return sorted(positions, key=lambda position: lengths[position])
    if order == "given":
        return sorted(positions, key=lambda position: records[position].row)
    sources = dict.fromkeys(record.source for record in records)
    first_seen = {source: rank for rank, source in enumerate(sources)}
    return sorted(positions, key=lambda position: first_seen[records[position].source])
