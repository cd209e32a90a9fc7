"""The order in which experiments and cycles follow each other.

Devices warm up and machines drift while a study runs, so the order decides what is confounded
with time.

Runs of one cycle whose experiments differ in their traffic alone may share a start of their server,
and stay together in the order. They are a session: sessions are what repeats, so the start of a
server varies with the cycle, and the places within a session are drawn as the order of the cycle
is.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence

from llenergymeasure.config.execution import CycleOrder
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.study import Experiment, Study

Slot = tuple[int, int]
"""An experiment's index, from 0, and a cycle, from 1."""

TRAFFIC_SECTIONS = frozenset({"serving", "slo"})
"""Sections that say what a server is asked, and nothing of how it is started."""


def order_slots(experiments: int, cycles: int, order: CycleOrder, seed: str) -> Iterator[Slot]:
    """Yield each experiment in each cycle once, in the order to run them.

    Args:
        experiments: how many there are.
        cycles: how many times each is run.
        order: ``sequential``: all cycles of one experiment, then the next. ``interleaved``: one
            cycle of all, then the next. ``shuffled``: interleaved, each cycle in its own random
            order. ``reverse``: interleaved, every second cycle backwards, so that a linear drift
            cancels. ``latin_square``: each cycle is a row of a Williams square.
        seed: what the random order is drawn from; the same text gives the same order.
    """
    return _slots([cycles] * experiments, 0, order, seed, rows=cycles)


def later_slots(cycles: Sequence[int], pilot: int, order: CycleOrder, seed: str) -> Iterator[Slot]:
    """Yield the cycles of each experiment after the pilot's, in an order as in :func:`order_slots`.

    A Latin square goes on with its next rows.
    """
    return _slots(cycles, pilot, order, seed, rows=None)


def _slots(
    cycles: Sequence[int], pilot: int, order: CycleOrder, seed: str, rows: int | None
) -> Iterator[Slot]:
    if order == "sequential":
        for index, cycle_count in enumerate(cycles):
            for cycle in range(pilot + 1, cycle_count + 1):
                yield index, cycle
        return
    experiments = len(cycles)
    for cycle in range(pilot + 1, max(cycles, default=0) + 1):
        square_rows = rows or max(experiments, cycle)
        for index in _row(experiments, square_rows, cycle, order, seed):
            if cycle <= cycles[index]:
                yield index, cycle


def _row(experiments: int, cycles: int, cycle: int, order: CycleOrder, seed: str) -> Sequence[int]:
    row = range(experiments)
    if order == "shuffled":
        return _shuffled(row, f"{seed}:{cycle}")
    if order == "reverse":
        return row if cycle % 2 else row[::-1]
    if order == "latin_square":
        return _williams_row(experiments, cycles, cycle)
    return row


def _shuffled(row: Sequence[int], seed: str) -> list[int]:
    """Return ``row`` shuffled by the Mersenne Twister, seeded from the SHA-512 of ``seed``.

    Sorting by random keys instead of ``random.shuffle`` keeps the order the same wherever
    ``random.random`` is, which Python promises between versions.
    """
    generator = random.Random(seed)
    keys = [generator.random() for _ in row]
    return sorted(row, key=keys.__getitem__)


def _williams_row(experiments: int, cycles: int, cycle: int) -> list[int]:
    """Return a row of a Williams square (Williams 1949, Aust. J. Sci. Res. A 2, 149-168).

    Over as many cycles as experiments, twice as many where their number is odd, each experiment
    is in each place, and follows each other one, equally often. Fewer cycles take rows that
    are evenly spaced.
    """
    if cycles < experiments:
        shift, mirrored = (cycle - 1) * experiments // cycles, False
    else:
        block, shift = divmod(cycle - 1, experiments)
        mirrored = bool(experiments % 2 and block % 2)
    row = [(place + shift) % experiments for place in _zigzag(experiments)]
    return row[::-1] if mirrored else row


def _zigzag(size: int) -> list[int]:
    """Return 0, 1, n-1, 2, n-2, …: neighbours whose differences are all distinct."""
    return [(place + 1) // 2 if place % 2 else (size - place // 2) % size for place in range(size)]


def server_key(experiment: Experiment) -> str | None:
    """Return what an experiment's server is started for; None where none is, or none to share."""
    config: ExperimentConfig = experiment.model
    serving = config.serving
    if serving is None or config.external_server or serving.cached_prompts:
        return None
    start_settings = {
        key: value for key, value in experiment.config.items() if key not in TRAFFIC_SECTIONS
    }
    return json.dumps({**start_settings, "command": config.command_settings()}, sort_keys=True)


def group_by_session(study: Study, slots: Sequence[Slot]) -> tuple[list[Slot], dict[Slot, int]]:
    """Return the slots with those of a session next to each other, where its first one was.

    And the number of the session of each slot that shares its server.
    """
    servers = _servers(study)
    first_places: dict[tuple[int, str | int], int] = {}
    for place, (index, cycle) in enumerate(slots):
        first_places.setdefault((cycle, servers.get(index, index)), place)
    order = sorted(slots, key=lambda slot: first_places[slot[1], servers.get(slot[0], slot[0])])
    keys = {slot: (slot[1], servers[slot[0]]) for slot in order if slot[0] in servers}
    shared = [key for key, runs in Counter(keys.values()).items() if runs > 1]
    numbers = {key: number for number, key in enumerate(shared, start=1)}
    return order, {slot: numbers[key] for slot, key in keys.items() if key in numbers}


def _servers(study: Study) -> dict[int, str]:
    """Return what the server of each experiment is started for, of those that may share it."""
    judge = study.sections.get("quality", {}).get("command")  # runs once the server is gone
    if not study.execution.share_server or judge is not None:
        return {}
    on_host = study.execution.meter == "host"  # a container then holds one run's engine alone
    servers = {
        index: server_key(experiment)
        for index, experiment in enumerate(study.experiments)
        if not on_host or study.runner(experiment.model.backend).runner == "local"
    }
    return {index: server for index, server in servers.items() if server is not None}
