"""What would keep a study's runs from being made: said once and at its start, not by every run."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError, PreflightError, Problem
from llenergymeasure.machine.folders import why_not_writable
from llenergymeasure.run.preflight.model_checks import weights_here
from llenergymeasure.workload.models.hub import (
    cached_file,
    hub_cache,
    offline,
    why_out_of_reach,
)
from llenergymeasure.workload.models.resolve import asked_revision, is_hub_id, resolve_model


def check_snakemakes_cache() -> None:
    """Refuse to begin where Snakemake could not keep its copies of the workflow's files.

    Raises:
        PreflightError: its folder cannot be written to.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "snakemake")
    reason = why_not_writable(folder)
    if reason is not None:
        text = f"Snakemake's cache cannot be written: {reason}; choose another: XDG_CACHE_HOME"
        raise PreflightError(Problem(text, file=folder))


def need_models(configs: Iterable[Mapping[str, Any]], *, in_jobs: bool = False) -> list[str]:
    """Make sure that models which are not here can be asked for; return what to say of some.

    Where the hub is switched off (HF_HUB_OFFLINE) runs fail at once and say so by themselves;
    without a network each would try again and again for half a minute. Jobs of a cluster may wait
    for hours before they fail, and may have another cache or network than this machine: what they
    would lack is said, and never refused.

    Raises:
        PreflightError: the hub cannot be reached, and no experiment has its model; names them.
    """
    given = list(configs)
    if offline() != in_jobs or hub_cache() is None:  # without its package nobody can look
        return []
    asked = [_asked_of_the_hub(each) for each in given]
    by_asked = {pair: each for pair, each in zip(asked, given, strict=True) if pair is not None}
    absent = [pair for pair, config in by_asked.items() if not _is_here(*pair, config)]
    names = ", ".join(f"{name} at revision {at}" if at is not None else name for name, at in absent)
    if in_jobs:
        return [_lacked_by_jobs(names)] if absent else []
    reason = why_out_of_reach() if absent else None
    if reason is None:
        return []
    message = (
        f"not in the local cache of the hub, and {reason}; fetch it first, or name a local folder, "
        "tiny-llama, or an architecture with weights: random"
    )
    problem = Problem(message, key="model", found=names)
    if all(pair in absent for pair in asked):
        raise PreflightError(problem)
    return [str(problem)]


def _lacked_by_jobs(names: str) -> str:
    message = (
        f"not in the hub's cache of this machine ({hub_cache()}), and HF_HUB_OFFLINE forbids to "
        "fetch it: its runs fail, unless jobs have another cache; set HF_HOME as it was for the "
        "download, or download it"
    )
    return str(Problem(message, key="model", found=names))


def _asked_of_the_hub(config: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """Return a model's name and revision there; None for one that does not come from there."""
    name = str(config["model"])
    if config.get("weights") == "random" or config["backend"] == "openai" or not is_hub_id(name):
        return None
    return name, asked_revision(ExperimentConfig.model_validate(config))


def _is_here(name: str, revision: str | None, config: Mapping[str, Any]) -> bool:
    if cached_file(name, "config.json", revision) is None:
        return False
    checked = ExperimentConfig.model_validate(config)
    try:
        return weights_here(checked, resolve_model(checked))
    except LlemError:  # the run's own preflight says what is wrong with it
        return True
