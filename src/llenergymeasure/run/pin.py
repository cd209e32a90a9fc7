"""Keeping a study, or each experiment, on one node or one model of GPU.

The first run to begin claims the place for all that follow, with a file that only one can make
(link(2)). A run that finds itself elsewhere refuses before it takes any time of the GPU; on a
cluster the workflow directs SLURM to where it is.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.errors import PreflightError, Problem
from llenergymeasure.files import (
    load_json,
    make_folder,
    open_file,
    read_json,
    remove,
    sync_folder,
)
from llenergymeasure.machine.scheduler import job_facts
from llenergymeasure.plan import Plan
from llenergymeasure.processes import ChildError, completed
from llenergymeasure.results.layout import StudyFolder

ASK_LIMIT_S = 60.0
_READY = ("idle", "mixed", "allocated", "completing")
"""Node states in which a job can start, or will, the best first."""


def hold_to_pin(spec: RunSpec, study: StudyFolder, surroundings: Mapping[str, Any]) -> None:
    """Claim this place for the study's runs, or check that it is the one claimed before.

    Raises:
        PreflightError: the study, or this experiment, is pinned elsewhere.
    """
    if spec.pin is None:
        return
    here = _place(surroundings)
    claim = study.pin(spec.experiment if spec.pin_scope == "experiment" else None)
    made = {**here, "by": f"{spec.experiment}/{spec.cycle}"}
    first = _claim(claim, made)
    if first[spec.pin] == here[spec.pin]:
        return
    what = "experiment" if spec.pin_scope == "experiment" else "study"
    name = "node" if spec.pin == "node" else "GPU model"
    raise PreflightError(
        [
            Problem(
                f"this {what} is pinned to {name} {first[spec.pin]}, where run {first['by']} was "
                f"made; this is {here[spec.pin]}. Let it run there, or remove {claim} to let the "
                "runs that are left go elsewhere",
                key="execution.pin",
            )
        ]
    )


def _place(surroundings: Mapping[str, Any]) -> dict[str, str]:
    node = (job_facts() or {}).get("node") or str(surroundings.get("host"))
    models = dict.fromkeys(str(card.get("name")) for card in surroundings.get("gpus") or [])
    return {"node": node, "gpu_model": ", ".join(models) or "none"}


def _claim(path: Path, place: Mapping[str, str]) -> dict[str, str]:
    """Return the claim that counts: the first one, which may be this.

    Raises:
        OSError: the existing claim cannot be read now.
        PreflightError: it is damaged.
    """
    make_folder(path.parent)
    own = path.with_name(f".{path.name}.{place['node']}.{os.getpid()}.part")
    remove(own)  # of a killed process, or another user's link
    with os.fdopen(open_file(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as stream:
        json.dump(dict(place), stream)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(own, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    finally:
        own.unlink(missing_ok=True)
    claimed: Any = None
    with suppress(ValueError):
        claimed = load_json(path)
    if not isinstance(claimed, dict) or not place.keys() <= claimed.keys():
        raise PreflightError(f"{path} does not say where the first run was made: remove it")
    return claimed


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Attributes:
        name: the scheduler's name of it.
        gpu_types: the scheduler's names of its GPU types; empty where it has none.
        has_gpus: whether it has any.
    """

    name: str
    gpu_types: frozenset[str]
    has_gpus: bool


def pin_options(plan: Plan, folder: StudyFolder, partition: str | None) -> dict[str, str]:
    """Return the sbatch options of each experiment; empty where nothing is pinned.

    A study continues where its first run was made; the first run goes to the most idle node, and
    to this job's own only where there is no other: this job holds a part of it as long as the study
    lives. Where SLURM knows no GPU types, a type cannot be requested: runs on another type of GPU
    then refuse.
    """
    pin = plan.execution.get("pin")
    if pin is None or shutil.which("sinfo") is None:
        return {}
    nodes = _nodes(partition)
    by_experiment = plan.execution.get("pin_scope") == "experiment"
    own = (job_facts() or {}).get("node")
    usable = [node for node in nodes if node.has_gpus] or nodes
    usable = [node for node in usable if node.name != own] or usable
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
    """Return the nodes in the output of ``sinfo -N -o '%N|%G|%T|%P'``, the most idle first.

    Without a partition, the nodes of the default one, which sinfo marks with a star.
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
    """Return the node where the first run was made; None if its name is not valid.

    A results folder may come from anybody, and Snakemake's executor passes the name to a shell.
    """
    node = (read_json(folder.pin(experiment)) or {}).get("node")
    return node if isinstance(node, str) and re.fullmatch(r"\w[\w.-]*", node) else None


def _without_other_models(node: str, nodes: Sequence[Node]) -> str:
    """Return the option that leaves out nodes whose GPUs are of another type than a node's."""
    types = next((each.gpu_types for each in nodes if each.name == node), frozenset())
    others = [each.name for each in nodes if types and not types & each.gpu_types]
    return f"--exclude={','.join(others)}" if others else ""
