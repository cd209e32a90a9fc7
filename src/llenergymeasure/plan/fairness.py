"""Which experiments do the same work, so that their engines can be compared, and which do not.

The contract: within a study all engines get the same prompts as token ids, write the same count
of output tokens, and compute in the same data type. What the settings show of it is found here,
before anything runs; what the runs then did is held against it when they are merged.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from llenergymeasure.config.requested_work import requested_work
from llenergymeasure.plan.plan import Plan


@dataclass(frozen=True)
class Unmatched:
    """Experiments of one backend that none of another's does the same work as.

    Attributes:
        backend: theirs.
        other: the other one.
        experiments: their ids.
        of: how many experiments the backend has.
        differs: in which settings the nearest one of the other backend differs: both values.
    """

    backend: str
    other: str
    experiments: tuple[str, ...]
    of: int
    differs: dict[str, tuple[Any, Any]]

    def __str__(self) -> str:
        """Return it in words."""
        number = "no experiment" if len(self.experiments) == self.of else "not every experiment"
        differences = ", ".join(
            f"{key} is {_text(one)} with {self.backend} and {_text(other)} with {self.other}"
            for key, (one, other) in self.differs.items()
        )
        return f"{number} of {self.backend} does the work of one of {self.other}: {differences}"


def planned_work(config: Mapping[str, Any]) -> str:
    """Return what an experiment is to do as text: the same for the same work."""
    return _key(requested_work(config))


def _key(work: Mapping[str, Any]) -> str:
    return json.dumps(work, sort_keys=True)


def configs_by_experiment(runs: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each experiment from a plan's runs, as ``plan.json`` holds them."""
    return {run["experiment"]: run.get("config") or {} for run in runs}


def unmatched_experiments(plan: Plan) -> list[Unmatched]:
    """Return which experiments of a backend have no counterpart with another one; none is fair."""
    by_backend: dict[str, dict[str, dict[str, Any]]] = {}
    for run in plan.runs:
        by_backend.setdefault(run.backend, {})[run.experiment] = requested_work(run.config)
    groups = []
    for (backend, works), (other, other_works) in permutations(by_backend.items(), 2):
        other_keys = set(map(_key, other_works.values()))
        unmatched = {name: work for name, work in works.items() if _key(work) not in other_keys}
        if unmatched:
            differences = (
                dict(_differences(a, b)) for a in unmatched.values() for b in other_works.values()
            )
            nearest = min(differences, key=len)
            groups.append(Unmatched(backend, other, tuple(unmatched), len(works), nearest))
    return groups


def fairness(plan: Plan) -> dict[str, Any] | None:
    """Return what the plan's settings say of fairness, as plain values; None for one backend.

    ``same_work`` groups experiments that do the same work on several backends; ``not_comparable``
    are those without a counterpart.
    """
    runs = {run.experiment: run for run in reversed(plan.runs)}
    if len({run.backend for run in runs.values()}) < 2:
        return None
    groups: dict[str, list[str]] = {}
    for name in plan.experiments:
        groups.setdefault(planned_work(runs[name].config), []).append(name)
    shared = [group for group in groups.values() if len({runs[name].backend for name in group}) > 1]
    not_comparable = [asdict(group) for group in unmatched_experiments(plan)]
    return {"same_work": shared, "not_comparable": not_comparable}


def _differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in dict.fromkeys([*first, *second]):
        first_value, second_value = first.get(name), second.get(name)
        if first_value == second_value:
            continue
        if isinstance(first_value, Mapping) and isinstance(second_value, Mapping):
            yield from _differences(first_value, second_value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", (first_value, second_value)


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)
