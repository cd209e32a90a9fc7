"""A study: its experiments, what was left out, and how it is to be carried out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llenergymeasure.config.execution import ExecutionConfig, RunnerChoice, Runners
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.units import BackendName

DEFAULT_RESULTS = Path("results")


@dataclass(frozen=True, slots=True)
class Experiment:
    """One cell of the grid.

    Attributes:
        id: 12 hex digits; the same configuration has the same id in every study.
        config: the settings that are set, defaults included, as plain values.
        model: the same, typed.
        swept: the value of each setting that the study varies.
    """

    id: str
    config: dict[str, Any]
    model: ExperimentConfig
    swept: dict[str, Any]


@dataclass(frozen=True)
class Study:
    """What one study file says.

    Attributes:
        name: of the study, and of its folder below ``results_root``.
        origin: the file it was read from.
        experiments: each once, in the order of the file.
        left_out: the points that cannot be run: ``config`` as it was written, and ``reason``.
        same_as: the points whose work another experiment does already: ``config``, the id of the
            ``experiment`` that is measured, and by ``reason`` of which rule.
        execution: how the runs follow each other, as given.
        n_cycles: cycles of each experiment, as resolved.
        runners: where a backend runs, of those that the study uses and says it of.
        notify: whom to notify when it has ended.
        sections: what each run is given of the study's own sections, by name.
        results_root: folder that holds the study's own.
        swept_keys: dotted names of the settings that vary, the backend apart.
        notes: what a reader should know before running it, a sentence each.
        written: the study as it was written, its base merged in, without whom it notifies.
        overrides: dotted names of settings that were set over it, and their values.
    """

    name: str
    origin: Path | None
    experiments: tuple[Experiment, ...]
    left_out: tuple[dict[str, Any], ...]
    execution: ExecutionConfig
    n_cycles: int
    runners: Runners
    notify: NotifyConfig | None = None
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results_root: Path = DEFAULT_RESULTS
    swept_keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    same_as: tuple[dict[str, Any], ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def runner(self, backend: BackendName) -> RunnerChoice:
        """Return where ``backend`` runs."""
        return self.runners.get(backend, RunnerChoice())
