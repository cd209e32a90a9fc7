"""Everything that would make a run fail or mislead, found together and before any GPU time.

A check is a function ``check_…(…) -> Iterator[Problem]``; each problem says itself whether it is
fatal.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, TypeVar

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.refusals import read_refusal
from llenergymeasure.config.conflicting_settings import broken_rules
from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.engine_parameters import ENGINES, load
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.identity import Identifier, local_files
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.config.serving import ONE_USER
from llenergymeasure.errors import ConfigurationError, LlemError, Problem
from llenergymeasure.machine.folders import MIN_FREE_BYTES, free_bytes, why_not_writable
from llenergymeasure.machine.gpus.allotment import Demand, allot, demand, driver_there
from llenergymeasure.machine.gpus.inventory import Gpu, Inventory, bindings_problem, discover
from llenergymeasure.machine.gpus.state import gpu_state, unusual_settings
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.preflight.model_checks import check_model
from llenergymeasure.sensors.base import SensorError
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import OTHERS_MAX, HostCpu
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model, to_shape
from llenergymeasure.workload.prompts import build_workload, read_dataset
from llenergymeasure.workload.requests import Workload

RESULTS_WARNING_BYTES = 1_000_000_000
ADDRESS_SPACE_MIN_BYTES = 2_000_000_000

IN_USE_BYTES = 1_500_000_000
"""A driver uses a few hundred MB of an idle card; more than this belongs to a process."""

CPU_SAMPLE_S = 0.5
"""A shorter time shows little of the CPUs' use: the kernel counts in ticks of 10 ms."""
MAX_NAMED_PROCESSES = 3

MAX_NAMED_FILES = 5
_LOG_PATTERNS = ("nohup.out", "slurm-*.out", "*.log")
"""Files that may grow in a model's folder when that is the working folder."""

_CpuTimes = tuple[dict[str, float], dict[int, float]]
CpuSample = tuple[float, _CpuTimes | None]

T = TypeVar("T")


@dataclass(frozen=True)
class Preflight:
    """What the preflight found.

    Attributes:
        errors: problems that keep the run from starting.
        warnings: what the reader of its result should know.
        source: where the model comes from; None if it cannot be fetched.
        workload: what the engine will be asked; None if it could not be made.
        cards: the GPUs the run will use, in CUDA's order.
    """

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    source: ModelSource | None = None
    workload: Workload | None = None
    cards: tuple[Gpu, ...] = ()


def preflight(
    config: ExperimentConfig,
    backend: Backend,
    folder: Path,
    *,
    run_pid: int,
    model_loaded: bool = False,
) -> Preflight:
    """Look at everything a run needs, before it takes any GPU time.

    The model's description and the data set are fetched here if necessary, but not the weights.

    Args:
        config: the experiment.
        backend: its engine.
        folder: where the run's results go.
        run_pid: the process at the root of the run's tree; GPU processes outside it are others'.
        model_loaded: whether its model is already in the cards' memory.
    """
    problems = [*backend.problems(config), *check_engine_version(config)]
    problems += check_server(config, backend)
    problems += check_engine_accepts(config, folder)
    workload = None
    source = _try_make(problems, "model", lambda: resolve_model(config))
    if source is not None:
        workload = _try_make(problems, "dataset", lambda: build_workload(config))
    elif config.synthetic() is None:
        _try_make(problems, "dataset", lambda: read_dataset(str(config.dataset)))
    cards = _try_make(problems, None, lambda: _cards(config, problems)) or ()
    problems += check_gpus(config, cards, run_pid, model_loaded=model_loaded)
    architecture = None if source is None else source.architecture
    problems += broken_rules(config, None if architecture is None else to_shape(architecture))
    problems += [*check_folder(folder), *check_address_space()]
    if source is not None:
        problems += check_model(config, source, workload, cards)
    problems = list(dict.fromkeys(problems))
    return Preflight(
        errors=tuple(problem for problem in problems if problem.fatal),
        warnings=tuple(problem for problem in problems if not problem.fatal),
        source=source,
        workload=workload,
        cards=cards,
    )


def check_server(config: ExperimentConfig, backend: Backend) -> Iterator[Problem]:
    """Yield why traffic cannot be sent to this engine's server."""
    if not config.served:
        return
    from llenergymeasure.backends.serving.client import connections_allowed

    problems: list[Problem] = []
    _try_make(problems, "serving", lambda: backend.server(config, 0))
    yield from problems
    users, max_connections = (config.serving or ONE_USER).concurrency or 0, connections_allowed()
    if users > max_connections:
        limit = f"open files allow {max_connections} connections (ulimit -Hn)"
        text = f"{limit}: requests of more users fail"
        yield Problem(text, key="serving.concurrency", found=str(users), fatal=False)


def check_engine_version(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield a warning if the engine installed here is another release than the one checked against.

    A study is checked where it is planned, against one release's parameters, and may run in an
    image or environment with another release. That release itself refuses what it does not know,
    before it loads a model.
    """
    if config.backend not in ENGINES:
        return
    parameters = load(config.backend)
    package = parameters["x-package"]
    try:
        installed = version(package).partition("+")[0]
    except PackageNotFoundError:  # a build may have another name; the search takes a while
        distributions = packages_distributions().get(package)
        if not distributions:
            return  # The backend itself says what is missing.
        installed = version(distributions[0]).partition("+")[0]
    if installed != parameters["x-version"]:
        yield Problem(
            f"{package} {installed}, installed here, is not the {parameters['x-version']} that "
            "settings were checked against: the numbers are of what is installed, and a setting "
            "that it no longer has ends the run",
            key="backend",
            fatal=False,
        )


def check_engine_accepts(config: ExperimentConfig, folder: Path) -> Iterator[Problem]:
    """Yield the engine's own refusal of these settings, asked for at the study's start."""
    refusal = read_refusal(RunFolder(folder), config.backend)
    if refusal is not None:
        yield Problem(f"{config.backend} refuses this experiment: {refusal}", key=config.backend)


def check_unchanged(spec: RunSpec, folder: RunFolder) -> Iterator[Problem]:
    """Yield a problem if a data set or another file has changed since the study was planned.

    Called after they have been read. Files are only hashed if one is newer than the plan; without
    the plan, as in a container of the engine alone, nothing is checked. A newer file may differ in
    its permissions only. Not found: files that were removed, changes after reading, and logs, if
    nothing else in the folder changed.
    """
    plan = folder.study.plan
    planned_ns = plan.stat().st_mtime_ns if plan.is_file() else math.inf
    with suppress(ConfigurationError, OSError):  # a missing file is reported where it is read
        paths = local_files(spec.config, in_folders=True)
        newer = [path for path in paths if path.stat().st_ctime_ns > planned_ns]
        unnamed = set(newer).difference(local_files(spec.config))
        logs = [path for path in newer if path in unnamed and any(map(path.match, _LOG_PATTERNS))]
        changed = [path for path in newer if path not in logs]
        if not changed:
            return
        identify = Identifier()
        experiment = identify.experiment_id(spec.config)
        identify.save()
        if experiment != spec.experiment:
            names = ", ".join(map(str, changed[:MAX_NAMED_FILES]))
            advice = f"; logs count too, keep them elsewhere: {logs[0]}" if logs else ""
            if value_at(spec.config, "openai.command"):
                advice += (
                    "; a server that writes files next to the model has to do so before the study: "
                    "start each of its commands once by hand"
                )
            yield Problem(
                "what this experiment reads has changed since the study was planned, which makes "
                f"another experiment of it; start the study again; newer than the plan: {names}"
                f"{advice}"
            )


def check_folder(folder: Path) -> Iterator[Problem]:
    """Yield why results cannot be written, or will soon fill the disk."""
    reason = why_not_writable(folder)
    if reason is not None:
        message = f"results cannot be written: {reason}; fix that, or set output_dir"
        yield Problem(message, file=folder)
    free = free_bytes(folder)
    if free is not None and free < RESULTS_WARNING_BYTES:
        message = f"only {free / 1e6:.0f} MB are free for results; make room"
        yield Problem(message, file=folder, fatal=free < MIN_FREE_BYTES)


def check_address_space() -> Iterator[Problem]:
    """Yield a problem if a limit on addresses would hang the result process: no thread starts."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE_MIN_BYTES:
        yield Problem(
            f"a process may have {limit / 1e9:.1f} GB of addresses (ulimit -v), and libraries "
            f"reserve more than they use; allow {ADDRESS_SPACE_MIN_BYTES / 1e9:g} GB or more"
        )


def check_gpu_count(
    config: ExperimentConfig, gpu_demand: Demand, inventory: Inventory, usable: int
) -> Iterator[Problem]:
    """Yield a problem if there are fewer GPUs than the experiment computes on."""
    if gpu_demand.needed and usable == 0:
        reason = inventory.unavailable or "CUDA_VISIBLE_DEVICES or the scheduler hides them all"
        remedy = f"; {inventory.remedy}" if inventory.remedy else ""
        key = "gpu" if config.gpu is not None else "backend"
        yield Problem(f"needs a GPU: {reason}{remedy}", key=key)
    elif usable and gpu_demand.count is not None and usable < gpu_demand.count:
        yield Problem(
            f"needs {gpu_demand.count} GPUs, and {usable} can be used here; lower the parallelism, "
            "or make more visible (CUDA_VISIBLE_DEVICES)",
            key=config.backend,
        )


def check_gpus(
    config: ExperimentConfig, cards: Sequence[Gpu], run_pid: int, *, model_loaded: bool = False
) -> Iterator[Problem]:
    """Yield what keeps each card from being measured, and settings other than the factory's."""
    run_processes = RunProcesses(run_pid)
    requested_w = config.gpu.power_limit_w if config.gpu else None
    for card in cards:
        name, state = f"GPU {card.uuid}", gpu_state(card)
        if "unavailable" in state:
            yield Problem(f"{name} does not answer: {state['unavailable']}; see nvidia-smi")
            continue
        # A server that is already running may use the card.
        if not config.external_server:
            yield from _in_use(name, card, state, run_processes, model_loaded=model_loaded)
        for text in unusual_settings(state, requested_w):
            yield Problem(f"{name} {text}", fatal=False)


def _in_use(
    name: str, card: Gpu, state: dict[str, Any], run_processes: RunProcesses, *, model_loaded: bool
) -> Iterator[Problem]:
    try:
        foreign_processes = run_processes.foreign_processes(card)
    except SensorError as error:
        yield Problem(f"{name} does not say who uses it: {error}", fatal=False)
        return
    used_bytes = state["memory_used_bytes"]
    if foreign_processes:
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in foreign_processes)
        yield Problem(
            f"{name} is in use by {names}: its energy would be counted as the "
            "run's; end it, or choose another GPU (CUDA_VISIBLE_DEVICES or gpu.devices)"
        )
    elif used_bytes is not None and used_bytes > IN_USE_BYTES and not model_loaded:
        yield Problem(
            f"{name} has {used_bytes / 1e9:.1f} GB in use, and no process is named for "
            "it: one may be hidden in another container, or have died and left it",
            fatal=False,
        )


def sample_cpus(host: HostCpu) -> CpuSample:
    """Return the CPU time used so far, in total and by each process, and the time of this look."""
    counts = _cpu_times(host)
    return time.monotonic(), counts


def check_cpus(host: HostCpu, first: CpuSample) -> Iterator[Problem]:
    """Yield the CPU use of other processes since a first look, if it is enough to change a run.

    Waits if the first look was less than :data:`CPU_SAMPLE_S` ago.
    """
    first_s, before = first
    time.sleep(max(0.0, first_s + CPU_SAMPLE_S - time.monotonic()))
    after = _cpu_times(host)
    if before is None or after is None:
        return
    (totals_before, by_pid_before), (totals, by_pid) = before, after
    rise = {name: totals[name] - totals_before[name] for name in totals_before}
    used_s = {pid: total_s - by_pid_before.get(pid, 0.0) for pid, total_s in by_pid.items()}
    used_s = {pid: use_s for pid, use_s in used_s.items() if use_s > 0 and host.shares_cpus(pid)}
    # Work of the kernel's own threads, as for reading a model, does not count.
    kernels_s = sum(used_s.pop(pid) for pid in list(used_s) if host.is_kernel_thread(pid))
    others_s = rise["cpu_busy_s"] - rise["cpu_own_s"] - kernels_s
    share = others_s / rise["cpu_total_s"] if rise["cpu_total_s"] else 0.0
    if share <= OTHERS_MAX:
        return
    busiest = sorted(used_s, key=used_s.__getitem__, reverse=True)[:MAX_NAMED_PROCESSES]
    names = [f"{host.name(pid)} (pid {pid})" for pid in busiest if used_s[pid] > others_s / 10]
    culprits = f": {', '.join(names)}" if names else ""
    yield Problem(
        f"at the start other processes used {100 * share:.0f} % of the CPUs{culprits}; more than "
        f"{100 * OTHERS_MAX:.0f} % makes a run slower and costlier than it would be alone: "
        "end those that are yours, or wait. If they also ran in the window, the run has the code "
        "cpu_contended",
        fatal=False,
    )


def _cpu_times(host: HostCpu) -> _CpuTimes | None:
    try:
        totals = host.totals()
    except SensorError:
        return None
    values = {str(sample.quantity): sample.value for sample in totals if sample.value is not None}
    return values, host.others_cpu_s()


def _cards(config: ExperimentConfig, problems: list[Problem]) -> tuple[Gpu, ...]:
    """Return the GPUs of the run; none where it computes on the CPU."""
    settings = config.model_dump(exclude_none=True)
    gpu_demand = demand(settings)
    if gpu_demand.count == 0:
        return ()
    inventory = discover()
    allotment = allot(settings, inventory)
    problems += [Problem(text, fatal=False) for text in allotment.warnings]
    bindings_fault = bindings_problem()
    if bindings_fault is not None and driver_there():
        # Without them the GPU's energy would be missing, and an estimate of the host would stand
        # for it.
        problems.append(Problem(f"{bindings_fault}; {inventory.remedy}", key="energy"))
    cards = inventory.by_uuids(allotment.uuids)
    problems += check_gpu_count(config, gpu_demand, inventory, len(cards))
    return cards


def _try_make(problems: list[Problem], key: str | None, make: Callable[[], T]) -> T | None:
    """Return the result of ``make``; add its error to ``problems``."""
    try:
        return make()
    except ConfigurationError as error:
        problems += error.problems
    except LlemError as error:
        problems.append(Problem(str(error), key=key))
    except ImportError as error:
        # The backend has already named what is not installed, more precisely.
        if not any(problem.fatal for problem in problems):
            problems.append(Problem(f"{error.name} is not installed", key="backend"))
    return None


def as_dict(problem: Problem) -> dict[str, Any]:
    """Return a problem as plain values, for the record."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in asdict(problem).items()
        if value is not None and key != "fatal"
    }
