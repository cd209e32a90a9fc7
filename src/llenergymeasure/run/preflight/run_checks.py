"""Everything that would make a run fail or mislead, found at once and before any GPU time."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from llenergymeasure.backends.base import Backend, Serving
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.rules import breaches
from llenergymeasure.errors import ConfigurationError, LlemError, Problem
from llenergymeasure.machine.disk import free_bytes, why_not_writable
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.run.preflight.engine_version import look_at_release
from llenergymeasure.run.preflight.gpu_checks import GpuChecks
from llenergymeasure.run.preflight.model_checks import look_at_model
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model
from llenergymeasure.workload.prompts import build_workload, read_dataset
from llenergymeasure.workload.requests import Workload
from llenergymeasure.workload.studies import shape_of

RESULTS_LEAST_BYTES = 100_000_000
RESULTS_FEW_BYTES = 1_000_000_000

T = TypeVar("T")


@dataclass
class Preflight:
    """What was found.

    Attributes:
        errors: why the run cannot start.
        warnings: what the reader of its result should know.
        source: where the model comes from; None if it cannot be had.
        workload: what the engine will be asked; None if it could not be made.
        cards: the GPUs the run will use, in CUDA's order.
    """

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    source: ModelSource | None = None
    workload: Workload | None = None
    cards: tuple[Gpu, ...] = ()

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return errors and warnings as plain values, for the record."""
        return {
            name: [
                {
                    key: str(value) if isinstance(value, Path) else value
                    for key, value in asdict(one).items()
                    if value is not None
                }
                for one in found
            ]
            for name, found in (("errors", self.errors), ("warnings", self.warnings))
        }


def preflight(
    config: ExperimentConfig, backend: Backend, folder: Path, *, run_pid: int
) -> Preflight:
    """Look at everything a run needs, before it takes any GPU time.

    What the model and data set are made of, but not the weights, is fetched here if need be.

    Args:
        config: the experiment.
        backend: its engine.
        folder: where the run's results go.
        run_pid: the process at the root of the run's tree; GPU processes outside it are others'.
    """
    found = Preflight(errors=list(backend.problems(config)))
    for problem, fatal in look_at_release(config):
        (found.errors if fatal else found.warnings).append(problem)
    if config.served and not isinstance(backend, Serving):
        text = f"backend {backend.name} has no server to send traffic to; remove this section"
        found.errors.append(Problem(text, key="serving"))
    elif config.served and isinstance(backend, Serving):
        server = backend.server
        _try(found, "serving", lambda: server(config, 0))
    found.source = source = _try(found, "model", lambda: resolve_model(config))
    if source is not None:
        found.workload = _try(found, "dataset", lambda: build_workload(config))
    elif config.synthetic() is None:
        _try(found, "dataset", lambda: read_dataset(str(config.dataset)))
    gpus = GpuChecks(config, run_pid)
    gpus.look()
    found.errors += gpus.errors
    found.warnings += gpus.warnings
    found.cards = gpus.cards
    found.errors += _breaches(config, source, found.cards)
    found.errors += _unwritable(folder)
    _look_at_disk(found, folder)
    if source is not None:
        model = look_at_model(config, source, found.workload, found.cards)
        found.errors += model.errors
        found.warnings += model.warnings
    found.errors = list(dict.fromkeys(found.errors))
    found.warnings = list(dict.fromkeys(found.warnings))
    return found


def _try(found: Preflight, key: str, make: Callable[[], T]) -> T | None:
    """Return what ``make`` gives; its error becomes one of those found."""
    try:
        return make()
    except ConfigurationError as error:
        found.errors += error.problems
    except LlemError as error:
        found.errors.append(Problem(str(error), key=key))
    except ImportError as error:
        # The backend has named what is not installed already, and better.
        if not found.errors:
            found.errors.append(Problem(f"{error.name} is not installed", key="backend"))
    return None


def _breaches(
    config: ExperimentConfig, source: ModelSource | None, cards: tuple[Gpu, ...]
) -> Iterator[Problem]:
    """Yield settings that do not go together, now that the model and the GPUs are known."""
    architecture = None if source is None else source.architecture
    shape = None if architecture is None else shape_of(architecture)
    capabilities = [card.compute_capability for card in cards if card.compute_capability]
    for breach in breaches(config, shape, min(capabilities, default=None)):
        yield Problem(str(breach), key=breach.key)


def _unwritable(folder: Path) -> Iterator[Problem]:
    reason = why_not_writable(folder)
    if reason is not None:
        yield Problem(
            f"results cannot be written: {reason}; fix that, or set output_dir", file=folder
        )


def _look_at_disk(found: Preflight, folder: Path) -> None:
    free = free_bytes(folder)
    if free is None or free >= RESULTS_FEW_BYTES:
        return
    problem = Problem(f"only {free / 1e6:.0f} MB are free for results; make room", file=folder)
    (found.errors if free < RESULTS_LEAST_BYTES else found.warnings).append(problem)
