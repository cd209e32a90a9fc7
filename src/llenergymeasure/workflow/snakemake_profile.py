"""What a Snakemake profile asks a cluster for, and which runs of a plan do not fit into that."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.installation import workflow_root
from llenergymeasure.machine.gpus.allotment import gpus_needed
from llenergymeasure.plan import Plan
from llenergymeasure.plan.estimate import duration
from llenergymeasure.report.formatting import count_text
from llenergymeasure.run.preflight.forecast import Forecast
from llenergymeasure.run.preflight.memory import format_size

MEASURE_RULE = "measure"
_LOCAL_EXECUTORS = ("local", "dryrun", "touch", None)
_PARTITION_CONFIG, _PARTITION_VARIABLE = "slurm-partition-config", "SNAKEMAKE_SLURM_PARTITIONS"
"""Name a file of partitions, out of which Snakemake's plugin chooses for each job."""
_MIB = 2**20
"""What SLURM counts memory in."""


@dataclass(frozen=True)
class JobRequest:
    """What each measured run's job is given on a cluster.

    Attributes:
        file: the profile's file.
        executor: Snakemake's plugin that submits it.
        description: whose job it is, in words.
        runtime_s: after which the scheduler ends it; None where the profile does not say.
        runtime_key: where that stands.
        memory_bytes: of its machine's memory; None where the profile does not say.
        memory_key: where that stands.
    """

    file: Path
    executor: str
    description: str
    runtime_s: float | None
    runtime_key: str
    memory_bytes: int | None
    memory_key: str


def snakemake_profile(profile: str | None) -> str:
    """Return what Snakemake is given as its profile: one of ours by its name, or as it was given.

    A folder that happens to lie here under the name of one of ours is not meant: ``./slurm`` is.
    """
    profile = profile or "default"
    return str(workflow_root() / "profiles" / profile) if is_bundled(profile) else profile


def is_bundled(profile: str) -> bool:
    """Return whether a profile is named that came with the workflow."""
    return "/" not in profile and (workflow_root() / "profiles" / profile / "config.yaml").is_file()


def job_request(profile: str | None) -> JobRequest | None:
    """Return what a profile asks a cluster for; None where runs stay on this machine.

    A profile that cannot be read is Snakemake's to complain of.

    Raises:
        ConfigurationError: there is no such profile.
    """
    if profile is None:
        return None
    file, settings = _read_profile(profile)
    if settings.get("executor") in _LOCAL_EXECUTORS:
        return None
    runtime_min, runtime_key = _requested(settings, "runtime")
    memory_mib, memory_key = _requested(settings, "mem_mb", "mem")
    partitions = (resources.get("slurm_partition") for resources in _resources(settings).values())
    partition, executor = next(filter(None, partitions), None), settings["executor"]
    queue = f"partition {partition}" if partition else "its default partition"
    if not partition and (settings.get(_PARTITION_CONFIG) or os.environ.get(_PARTITION_VARIABLE)):
        queue = "a partition that fits it"
    whose = f"SLURM in {queue}" if executor == "slurm" else f"the cluster ({executor})"
    return JobRequest(
        file,
        executor,
        description=f"each run is a job of {whose}, by the profile {file}",
        runtime_s=None if runtime_min is None else 60 * runtime_min,
        runtime_key=runtime_key,
        memory_bytes=None if memory_mib is None else round(memory_mib * _MIB),
        memory_key=memory_key,
    )


def may_share(execution: Mapping[str, Any], profile: str | None) -> bool:
    """Return whether nothing keeps a plan's runs from sharing a server, if it asks for that.

    They may where they go one at a time on this machine.

    Raises:
        ConfigurationError: there is no such profile.
    """
    if not execution.get("share_server"):
        return True
    _, settings = _read_profile(profile)
    gpu_slots = str(_as_mapping(settings.get("resources")).get("gpu", 1))
    return settings.get("executor") in _LOCAL_EXECUTORS and gpu_slots in ("0", "1")


def _read_profile(profile: str | None) -> tuple[Path, dict[str, Any]]:
    """Return a profile's file and what it says; nothing where it cannot be read."""
    from snakemake.cli import get_profile_dir

    paths = get_profile_dir(snakemake_profile(profile))
    if paths is None:
        files = sorted(workflow_root().glob("profiles/*/config.yaml"))
        names = ", ".join(file.parent.name for file in files)
        message = f"no such profile: there are {names}, and folders with a config.yaml"
        raise ConfigurationError(Problem(message, key="--profile", found=profile))
    try:
        settings = yaml.safe_load(paths[1].read_text())
    except (OSError, ValueError, yaml.YAMLError):
        settings = None
    return paths[1], settings if isinstance(settings, dict) else {}


def forecast_for(request: JobRequest | None) -> Forecast:
    """Return what is known of runs here, or in jobs on a cluster."""
    return Forecast(local=request is None, job_bytes=request.memory_bytes if request else None)


def misfits(plan: Plan, request: JobRequest, forecast: Forecast) -> Iterator[Problem]:
    """Yield which runs do not fit into the time and the memory of their jobs."""
    configs = {run.experiment: run.config for run in plan.runs}.values()
    estimates = forecast.estimates
    if request.runtime_s is not None:
        times = [estimates.run(config, measured=gpus_needed(config) > 0) for config in configs]
        too_long = [time for time in times if time.seconds > request.runtime_s]
        if too_long:
            longest = max(too_long, key=lambda time: time.seconds)
            yield Problem(
                f"the runs of {count_text(len(too_long), 'experiment')} take {longest} by "
                f"estimate, and the cluster ends a job after {duration(request.runtime_s)}; "
                "ask for "
                # Twice the time: an estimate may be wrong by that.
                f"{math.ceil(2 * longest.seconds / 60)} minutes",
                key=request.runtime_key,
                found=f"{request.runtime_s / 60:g} min",
                file=request.file,
                fatal=False,
            )
    if request.memory_bytes is not None:
        needs = [forecast.job_memory_need(estimates.config(config)) for config in configs]
        too_large = [need for need in needs if need is not None and need > request.memory_bytes]
        if too_large:
            yield Problem(
                f"the runs of {count_text(len(too_large), 'experiment')} need at least "
                f"{format_size(max(too_large))} for weights and cache, and a job is given "
                f"{format_size(request.memory_bytes)}; ask for "
                f"{math.ceil(1.25 * max(too_large) / _MIB)} MB",
                key=request.memory_key,
                found=f"{request.memory_bytes / _MIB:g} MB",
                file=request.file,
                fatal=False,
            )


def _requested(settings: Mapping[str, Any], *names: str) -> tuple[float | None, str]:
    """Return what a measured run is given of a resource, and the key that says so."""
    from snakemake.exceptions import WorkflowError
    from snakemake.resources import Resource

    for section, resources in _resources(settings).items():
        for name in resources.keys() & set(names):
            try:
                value = Resource.parse_human_friendly(name, resources[name])
                return float(str(value).strip("'\"")), f"{section}.{name}"
            except (ValueError, WorkflowError):
                return None, ""  # an expression, which Snakemake alone can work out
    return None, ""


def _resources(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a measured run is given, by the key that says so: first what wins."""
    rules = settings.get("set-resources") or {}
    rule_resources = (
        rules.get(MEASURE_RULE)
        if isinstance(rules, Mapping)
        else [pair.partition(":")[2] for pair in rules if str(pair).startswith(f"{MEASURE_RULE}:")]
    )
    return {
        f"set-resources.{MEASURE_RULE}": _as_mapping(rule_resources),
        "default-resources": _as_mapping(settings.get("default-resources")),
    }


def _as_mapping(resources: Any) -> dict[str, Any]:
    """Return resources that a profile may give as a mapping or as a list of ``NAME=VALUE``."""
    if isinstance(resources, Mapping):
        return dict(resources)
    pairs = (str(pair).partition("=") for pair in resources or ())
    return {name: value for name, _, value in pairs}
