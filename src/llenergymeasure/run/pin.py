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
from llenergymeasure.machine.scheduler import job_facts, run_slurm
from llenergymeasure.plan import Plan
from llenergymeasure.processes import ChildError
from llenergymeasure.results.layout import StudyFolder

SINFO_LIMIT_S = 60.0
_USABLE_STATES = ("idle", "mixed", "allocated", "completing")
"""Node states in which a job can start, or will, the best first."""


def enforce_pin(spec: RunSpec, study: StudyFolder, environment: Mapping[str, Any]) -> None:
    """Claim this place for the study's runs, or check that it is the one claimed before.

    Raises:
        PreflightError: the study, or this experiment, is pinned elsewhere.
    """
    if spec.pin is None:
        return
    this_place = _this_place(environment)
    path = study.pin(spec.experiment if spec.pin_scope == "experiment" else None)
    own_claim = {**this_place, "by": f"{spec.experiment}/{spec.cycle}"}
    claim = _claim(path, own_claim)
    if claim[spec.pin] == this_place[spec.pin]:
        return
    pinned = "experiment" if spec.pin_scope == "experiment" else "study"
    place_kind = "node" if spec.pin == "node" else "GPU model"
    raise PreflightError(
        [
            Problem(
                f"this {pinned} is pinned to {place_kind} {claim[spec.pin]}, where run "
                f"{claim['by']} was made; this is {this_place[spec.pin]}. Let it run there, or "
                f"remove {path} to let the runs that are left go elsewhere",
                key="execution.pin",
            )
        ]
    )


def _this_place(environment: Mapping[str, Any]) -> dict[str, str]:
    node = (job_facts() or {}).get("node") or str(environment.get("host"))
    models = dict.fromkeys(str(card.get("name")) for card in environment.get("gpus") or [])
    return {"node": node, "gpu_model": ", ".join(models) or "none"}


def _claim(path: Path, place: Mapping[str, str]) -> dict[str, str]:
    """Return the claim that counts: the first one, which may be this.

    Raises:
        OSError: the existing claim cannot be read now.
        PreflightError: it is damaged.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{place['node']}.{os.getpid()}.part")
    remove(temporary)  # of a killed process, or another user's link
    with os.fdopen(open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as stream:
        json.dump(dict(place), stream)
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(temporary, path)
        sync_folder(path.parent)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    claim: Any = None
    with suppress(ValueError):
        claim = load_json(path)
    if not isinstance(claim, dict) or not place.keys() <= claim.keys():
        raise PreflightError(f"{path} does not say where the first run was made: remove it")
    return claim


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
    own_node = (job_facts() or {}).get("node")
    usable = [node for node in nodes if node.has_gpus] or nodes
    usable = [node for node in usable if node.name != own_node] or usable
    if not usable:
        return {}
    options = {}
    for position, experiment in enumerate(plan.experiments):
        claimed_node = _claimed_node(folder, experiment if by_experiment else None)
        fallback = usable[position % len(usable) if by_experiment else 0].name
        node = claimed_node or fallback
        option = f"--nodelist={node}" if pin == "node" else _exclude_other_models(node, nodes)
        if option:
            options[experiment] = option
    return options


def parse_nodes(text: str, partition: str | None) -> list[Node]:
    """Return the nodes in the output of ``sinfo -N -o '%N|%G|%T|%P'``, the most idle first.

    Without a partition, the nodes of the default one, which sinfo marks with a star.
    """
    nodes: dict[str, list[Node]] = {state: [] for state in _USABLE_STATES}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 4:  # a site's own greeting, say
            continue
        name, gres, state, node_partition = fields
        is_default = node_partition.endswith("*")
        in_partition = is_default if partition is None else node_partition.rstrip("*") == partition
        state_name = state.rstrip("*~#!%$@^-+")
        if in_partition and state_name in nodes:
            types = re.findall(r"gpu:([A-Za-z][\w.-]*)", gres)
            nodes[state_name].append(Node(name, frozenset(types), "gpu" in gres))
    return [node for state in _USABLE_STATES for node in nodes[state]]


def _nodes(partition: str | None) -> list[Node]:
    try:
        result = run_slurm(["sinfo", "--noheader", "-N", "-o", "%N|%G|%T|%P"], SINFO_LIMIT_S)
    except ChildError:
        return []
    return parse_nodes(result.stdout, partition) if result.returncode == 0 else []


def _claimed_node(folder: StudyFolder, experiment: str | None) -> str | None:
    """Return the node where the first run was made; None if its name is not valid.

    A results folder may come from anybody, and Snakemake's executor passes the name to a shell.
    """
    node = (read_json(folder.pin(experiment)) or {}).get("node")
    return node if isinstance(node, str) and re.fullmatch(r"\w[\w.-]*", node) else None


def _exclude_other_models(node: str, nodes: Sequence[Node]) -> str:
    """Return the option that leaves out nodes whose GPUs are of another type than a node's."""
    types = next((other.gpu_types for other in nodes if other.name == node), frozenset())
    others = [other.name for other in nodes if types and not types & other.gpu_types]
    return f"--exclude={','.join(others)}" if others else ""
