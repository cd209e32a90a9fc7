"""How many CPU threads compute."""

import math
import os

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.machine.cpu_share import usable_cores
from llenergymeasure.machine.host import cpu_quota
from llenergymeasure.workload.models.resolve import resolve_model

SMALL_MODEL_PARAMETERS = 100_000_000
"""Below this, handing work to a second thread costs more than it saves."""


def choose_threads(
    parameters: int | None, *, requested: int | None, on_gpu: bool, processes: int = 1
) -> int:
    """Return the number of threads for a model, at least 1.

    The one asked for; else 1 for a small model and for one on a GPU, where a second thread would
    only spin; else the physical cores this process may use, shared among ``processes``.

    Args:
        parameters: of the model; None if not known yet, which counts as large.
        requested: the setting in the study.
        on_gpu: whether the model computes on a GPU.
        processes: replicas that share the machine.
    """
    if requested is not None:
        return requested
    if on_gpu or (parameters is not None and parameters < SMALL_MODEL_PARAMETERS):
        return 1
    return max(1, own_cores() // processes)


def threads_variable(config: ExperimentConfig) -> dict[str, str]:
    """Return the variable that gives an engine on a CPU as many threads as pytorch would take.

    Nothing where the variable is set already.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    architecture = resolve_model(config).architecture
    parameters = None if architecture is None else architecture.parameters()
    return {"OMP_NUM_THREADS": str(choose_threads(parameters, requested=None, on_gpu=False))}


def own_cores() -> int:
    """Return the physical cores this process may use: by affinity and by cgroup quota."""
    cores, quota = len(usable_cores()), cpu_quota()
    return max(1, cores if quota is None else min(cores, math.floor(quota)))
