"""How carefully a run measures: the named protocols and what a study's own settings change."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from llenergymeasure.config.experiment import ExperimentConfig

ResolvedProtocol = Literal["quick", "standard", "publication"]
WindowSource = Literal["protocol", "study", "sensor"]


@dataclass(frozen=True)
class ProtocolSettings:
    """Every protocol setting as it is in force for one run; durations in seconds.

    Attributes:
        window_min_s: least length of the window.
        window_min_source: who asks for it: the protocol, the study, or the sensor, of which it is
            known that it needs longer for the precision.
        precision: relative half width of the energy's interval that the window is to reach.
        min_batches: fewest whole batches in the window.
        idle_before_s: length of the idle phases before the work; 0 is none.
        idle_after_s: length of the idle phase after it; 0 is none.
        settle_enabled: wait until the temperature and power of the GPUs stand still.
        settle_max_s: give up waiting after so long; the run goes on and says so.
        warmup_enabled: warm up at all.
        warmup_n: batches run before any are judged.
        warmup_floor_s: least time spent warming up.
        warmup_convergence: go on until the latency settles.
        warmup_cv_threshold: settled when the coefficient of variation is below this.
        warmup_max_prompts: give up settling after so many batches.
        warmup_window_size: latest batches the variation is taken over.
        warmup_min_prompts: judge no earlier than after this many batches.
        cycles_min: fewest cycles a mean should rest on.
    """

    name: ResolvedProtocol
    window_min_s: float
    min_batches: int
    idle_before_s: float
    idle_after_s: float
    settle_enabled: bool
    settle_max_s: float
    warmup_enabled: bool
    warmup_n: int
    warmup_floor_s: float
    warmup_convergence: bool
    warmup_cv_threshold: float
    warmup_max_prompts: int
    warmup_window_size: int
    warmup_min_prompts: int
    cycles_min: int
    precision: float
    window_min_source: WindowSource = "protocol"

    def long_enough_for(self, sensor_s: float | None) -> "ProtocolSettings":
        """Return the protocol with a window that the sensor can resolve; a study's own stays.

        Args:
            sensor_s: the shortest window that reaches the precision; None where it is not known.
        """
        if sensor_s is None or sensor_s <= self.window_min_s or self.window_min_source == "study":
            return self
        return replace(self, window_min_s=sensor_s, window_min_source="sensor")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, as they are in a run's record."""
        return asdict(self)


# Windows: end-point quantisation of a 0.1 s counter is 2 % at 5 s and 0.5 % at 20 s; results
# meant for print take 60 s, as MLPerf Power does.
_STANDARD = ProtocolSettings(
    name="standard",
    window_min_s=20.0,
    min_batches=3,
    idle_before_s=10.0,
    idle_after_s=10.0,
    settle_enabled=True,
    settle_max_s=120.0,
    warmup_enabled=True,
    warmup_n=5,
    warmup_floor_s=10.0,
    warmup_convergence=True,
    warmup_cv_threshold=0.05,
    warmup_max_prompts=20,
    warmup_window_size=5,
    warmup_min_prompts=5,
    cycles_min=3,
    precision=0.02,
)
_NAMED: dict[ResolvedProtocol, ProtocolSettings] = {
    "quick": replace(
        _STANDARD,
        name="quick",
        window_min_s=1.0,
        min_batches=1,
        idle_before_s=0.0,
        idle_after_s=0.0,
        settle_enabled=False,
        settle_max_s=0.0,
        warmup_n=1,
        warmup_floor_s=0.0,
        warmup_convergence=False,
        cycles_min=1,
        precision=0.05,
    ),
    "standard": _STANDARD,
    "publication": replace(
        _STANDARD,
        name="publication",
        window_min_s=60.0,
        min_batches=5,
        idle_before_s=30.0,
        idle_after_s=30.0,
        settle_max_s=300.0,
        warmup_floor_s=30.0,
        warmup_cv_threshold=0.03,
        warmup_max_prompts=60,
        cycles_min=5,
        precision=0.01,
    ),
}

_DEFAULT_IDLE_S = 10.0
"""Length of an idle phase that a study asks for under a protocol that has none."""


def resolve_protocol(config: ExperimentConfig, measured: bool) -> ProtocolSettings:
    """Return the protocol in force: the named one, with the study's own settings over it.

    Args:
        config: the experiment.
        measured: whether a sensor measures; ``auto`` is ``standard`` then, else ``quick``.
    """
    auto: ResolvedProtocol = "standard" if measured else "quick"
    named = _NAMED[auto if config.protocol == "auto" else config.protocol]
    warmup, window = config.warmup, config.window
    idle_before_s, idle_after_s = _idle_phases_s(config, named)
    explicit: dict[str, Any] = {
        "window_min_s": window.min_seconds,
        "window_min_source": None if window.min_seconds is None else "study",
        "precision": window.precision,
        "min_batches": window.min_batches,
        "idle_before_s": idle_before_s,
        "idle_after_s": idle_after_s,
        "warmup_enabled": warmup.enabled,
        "warmup_n": warmup.n_warmup,
        "warmup_floor_s": warmup.thermal_floor_seconds,
        "warmup_convergence": warmup.convergence_detection,
        "warmup_cv_threshold": warmup.cv_threshold,
        "warmup_max_prompts": warmup.max_prompts,
        "warmup_window_size": warmup.window_size,
        "warmup_min_prompts": warmup.min_prompts,
    }
    settings = replace(named, **{k: v for k, v in explicit.items() if v is not None})
    fewest = settings.warmup_n, settings.warmup_min_prompts, settings.warmup_window_size
    return replace(settings, warmup_max_prompts=max(settings.warmup_max_prompts, *fewest))


def cycles_min(config: ExperimentConfig) -> int:
    """Return the fewest cycles that the named protocol asks for; 1 where it is ``auto``."""
    return 1 if config.protocol == "auto" else _NAMED[config.protocol].cycles_min


def _idle_phases_s(config: ExperimentConfig, named: ProtocolSettings) -> tuple[float, float]:
    baseline = config.baseline
    if baseline.enabled is False:
        return 0.0, 0.0
    if baseline.duration_seconds is not None:
        return baseline.duration_seconds, baseline.duration_seconds
    if baseline.enabled:
        return (
            named.idle_before_s or _DEFAULT_IDLE_S,
            named.idle_after_s or _DEFAULT_IDLE_S,
        )
    return named.idle_before_s, named.idle_after_s
