"""What an engine refuses of a study's settings, asked of the engine itself before any GPU time.

The engine is asked once, where its runs will be: in its image, or in this environment. What it
answers stands in the study's folder in its own words, and a run that it refuses fails in its
preflight. Where nothing was asked the engine refuses on loading.

``python -m llenergymeasure.backends.refusals BACKEND FOLDER`` asks for the study in a folder.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from llenergymeasure.backends import registry
from llenergymeasure.backends.base import SettingsValidator
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError
from llenergymeasure.files import read_json, write_text
from llenergymeasure.processes import ChildError, python_module, run_to_end
from llenergymeasure.results.layout import RunFolder, StudyFolder

TIME_LIMIT_S = 300.0
"""Less than a look into an image may take: an engine that hangs must not end that."""

MAX_EXPERIMENTS = 1000
"""Each takes tens of milliseconds; the rest of a larger study is refused on loading."""

MAX_PENALTY = 2
"""SGLang's; a study's schema bounds the decoder's other settings, bar the fewest tokens."""


def write_refusals(backend: str, folder: StudyFolder) -> None:
    """Ask a backend's engine about each experiment of a study, and keep what it refuses."""
    engine = registry.get(backend)
    refusals: dict[str, str] = {}
    if isinstance(engine, SettingsValidator):
        for name, config in _configs_to_check(backend, folder).items():
            reason = _refusal(engine, config)
            if reason is not None:
                refusals[name] = reason
    write_text(folder.refusals_path(backend), json.dumps(refusals, indent=1, ensure_ascii=False))


def write_refusals_in_child(backend: str, folder: StudyFolder) -> None:
    """Ask in a process of its own: an engine cannot be left once imported, and may end or hang."""
    if isinstance(registry.get(backend), SettingsValidator) and _configs_to_check(backend, folder):
        with suppress(ChildError):
            module = "llenergymeasure.backends.refusals"
            run_to_end(python_module(module, backend, str(folder.path)), TIME_LIMIT_S)


def read_refusal(run: RunFolder, backend: str) -> str | None:
    """Return why an engine refuses a run's settings; None where it does not, or was not asked."""
    refusals = read_json(run.study.refusals_path(backend)) or {}
    reason = refusals.get(run.path.parent.name)
    return reason if isinstance(reason, str) else None


def _configs_to_check(backend: str, folder: StudyFolder) -> dict[str, Mapping[str, Any]]:
    """Return the configurations of a study that the engine is asked about, by experiment."""
    plan = read_json(folder.plan) or {}
    configs = {
        run["experiment"]: run["config"]
        for run in plan.get("runs", ())
        if run["backend"] == backend and _has_engine_settings(run["config"])
    }
    return dict(islice(configs.items(), MAX_EXPERIMENTS))


def _has_engine_settings(config: Mapping[str, Any]) -> bool:
    """Whether an experiment sets what is the engine's to judge."""
    engine_settings = config.get(config["backend"]) or config.get("passthrough_kwargs")
    decoder = config.get("decoder") or {}
    high_penalty = decoder.get("repetition_penalty", 1) > MAX_PENALTY
    return bool(engine_settings or high_penalty or decoder.get("min_new_tokens"))


def _refusal(engine: SettingsValidator, config: Mapping[str, Any]) -> str | None:
    try:
        return engine.refusal(ExperimentConfig.model_validate(config))
    except LlemError:  # a model that is not here is the run's own preflight's to report
        return None


if __name__ == "__main__":
    write_refusals(sys.argv[1], StudyFolder(Path(sys.argv[2])))
