"""Directs SLURM where the runs of a pinned study go; each run sees to it again when it begins."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from llenergymeasure.files import read_json
from llenergymeasure.plan import Plan
from llenergymeasure.processes import ChildError, completed
from llenergymeasure.results.layout import StudyFolder

ASK_LIMIT_S = 60.0
_READY = ("idle", "mixed", "allocated", "completing")
"""Node states in which a job can start, or will, the best first."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        name: by which the scheduler calls it.
        gpu_types: what it calls the node's GPUs; empty where they have no types.
        has_gpus: whether it has any.
    """

    name: str
    gpu_types: frozenset[str]
    has_gpus: bool


def pin_options(plan: Plan, folder: StudyFolder, partition: str | None) -> dict[str, str]:
    """Return what sbatch has to be given for each experiment; empty where nothing is pinned.

    A study goes on where its first run was made; before there is one, where a node is most idle.
    Where GPUs have no types in SLURM it cannot be given a model: runs on another one then refuse.
    """
    pin = plan.execution.get("pin")
    if pin is None or shutil.which("sinfo") is None:
        return {}
    nodes = _nodes(partition)
    by_experiment = plan.execution.get("pin_scope") == "experiment"
    usable = [node for node in nodes if node.has_gpus] or nodes
    if not usable:
        return {}
    options = {}
    for place, experiment in enumerate(plan.experiments):
        claimed = _claimed(folder, experiment if by_experiment else None)
        fallback = usable[place % len(usable) if by_experiment else 0].name
        node = claimed or fallback
        options[experiment] = (
            f"--nodelist={node}" if pin == "node" else _without_other_models(node, nodes)
        )
    return {experiment: option for experiment, option in options.items() if option}


def parse_nodes(text: str, partition: str | None) -> list[Node]:
    """Return the nodes in ``sinfo -N -o '%N|%G|%T|%P'``, those that are most idle first.

    Without a partition those of the default one, which is marked with a star.
    """
    found: list[tuple[int, Node]] = []
    for line in text.splitlines():
        name, gres, state, where = line.split("|")
        here = where.endswith("*") if partition is None else where.rstrip("*") == partition
        word = state.rstrip("*~#!%$@^-+")
        if here and word in _READY:
            types = re.findall(r"gpu:([A-Za-z][\w.-]*)", gres)
            found.append((_READY.index(word), Node(name, frozenset(types), "gpu" in gres)))
    return [node for _, node in sorted(found, key=lambda each: each[0])]


def _nodes(partition: str | None) -> list[Node]:
    try:
        done = completed(["sinfo", "--noheader", "-N", "-o", "%N|%G|%T|%P"], ASK_LIMIT_S)
    except ChildError:
        return []
    return parse_nodes(done.stdout, partition) if done.returncode == 0 else []


def _claimed(folder: StudyFolder, experiment: str | None) -> str | None:
    """Return the node where the first run was made; None for what is no name of one.

    A results folder may come from anybody, and Snakemake's executor hands the name to a shell.
    """
    node = (read_json(folder.pin(experiment)) or {}).get("node")
    return node if isinstance(node, str) and re.fullmatch(r"\w[\w.-]*", node) else None


def _without_other_models(node: str, nodes: Sequence[Node]) -> str:
    """Return the option that leaves out nodes whose GPUs are of another type than a node's."""
    types = next((each.gpu_types for each in nodes if each.name == node), frozenset())
    others = [each.name for each in nodes if types and not types & each.gpu_types]
    return f"--exclude={','.join(others)}" if others else ""
