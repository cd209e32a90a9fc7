"""Which runs may share a start of their server, and stay together in the order.

Those of one cycle whose experiments differ in their traffic alone. A cycle's runs of one server are
a session: sessions are what repeats, so the start of a server varies with the cycle, and the places
within a session are drawn as the order of the cycle is.
"""

import json
from collections import Counter
from collections.abc import Sequence

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.study import Experiment, Study
from llenergymeasure.plan.orders import Slot

TRAFFIC = frozenset({"serving", "slo"})
"""Sections that say what a server is asked, and nothing of how it is started."""


def server_of(experiment: Experiment) -> str | None:
    """Return what an experiment's server is started for; None where none is, or none to share."""
    config: ExperimentConfig = experiment.model
    serving = config.serving
    if serving is None or config.external_server or serving.cached_prompts:
        return None
    rest = {key: value for key, value in experiment.config.items() if key not in TRAFFIC}
    return json.dumps({**rest, "command": config.held_by_command()}, sort_keys=True)


def together(study: Study, slots: Sequence[Slot]) -> tuple[list[Slot], dict[Slot, int]]:
    """Return the slots with those of a session next to each other, where its first one was.

    And the number of the session of each slot that shares its server.
    """
    servers = _servers(study)
    places: dict[tuple[int, str | int], int] = {}
    for place, (index, cycle) in enumerate(slots):
        places.setdefault((cycle, servers.get(index, index)), place)
    joined = sorted(slots, key=lambda slot: places[slot[1], servers.get(slot[0], slot[0])])
    asked = {slot: (slot[1], servers[slot[0]]) for slot in joined if slot[0] in servers}
    shared = [each for each, runs in Counter(asked.values()).items() if runs > 1]
    numbers = {each: number for number, each in enumerate(shared, start=1)}
    return joined, {slot: numbers[each] for slot, each in asked.items() if each in numbers}


def _servers(study: Study) -> dict[int, str]:
    """Return what the server of each experiment is started for, of those that may share it."""
    judged = study.sections.get("quality", {}).get("command") is not None  # once the server is gone
    if not study.execution.share_server or judged:
        return {}
    outside = study.execution.meter == "host"  # a container then holds one run's engine alone
    found = {
        index: server_of(each)
        for index, each in enumerate(study.experiments)
        if not outside or study.runner(each.model.backend).runner == "local"
    }
    return {index: server for index, server in found.items() if server is not None}
