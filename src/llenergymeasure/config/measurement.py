"""How an experiment is measured: warm-up, idle phases, window, the energy's source, and GPUs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from llenergymeasure.config.section import Seconds, Section, Text

EnergySource = Literal["auto", "nvml", "rapl", "zeus", "codecarbon", "none"]

MAX_PROMPTS = 10_000_000
Prompts = Annotated[int, Field(ge=1, le=MAX_PROMPTS)]


class WarmupConfig(Section):
    """Prompts run before the window, so that clocks, caches and compilation have settled.

    What is not given comes from the protocol.
    """

    enabled: bool = Field(default=True, description="Warm up at all.")
    n_warmup: Prompts | None = Field(
        default=None,
        description="Batches to warm up with before any is judged; of one prompt each where the "
        "engine takes one at a time.",
    )
    thermal_floor_seconds: Seconds | None = Field(
        default=None, description="Least time spent warming up, in seconds."
    )
    convergence_detection: bool | None = Field(
        default=None, description="Go on until the latency settles (cv_threshold)."
    )
    cv_threshold: float | None = Field(
        default=None,
        ge=0.01,
        le=0.5,
        description="Settled when the latencies' coefficient of variation is below this.",
    )
    max_prompts: int | None = Field(
        default=None, ge=5, le=MAX_PROMPTS, description="Give up settling after so many batches."
    )
    window_size: int | None = Field(
        default=None, ge=3, le=10_000, description="Latest batches the variation is taken over."
    )
    min_prompts: Prompts | None = Field(
        default=None, description="Judge no earlier than after this many batches."
    )


class BaselineConfig(Section):
    """The idle phases around the work. What is not given comes from the protocol."""

    enabled: bool | None = Field(default=None, description="Measure idle power before and after.")
    duration_seconds: float | None = Field(
        default=None, ge=5, le=120, description="Length of each idle phase, in seconds."
    )


class WindowConfig(Section):
    """The measured window. What is not given comes from the protocol."""

    min_seconds: float | None = Field(
        default=None, gt=0, le=86_400, description="Least length of the window, in seconds."
    )
    min_batches: Prompts | None = Field(
        default=None, description="Fewest whole batches inside the window."
    )
    precision: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="Relative half width that the energy's interval is to reach; windows are made "
        "longer where the sensor is known to need it, unless min_seconds is given.",
        examples=[0.01],
    )


class EnergyConfig(Section):
    """Where the headline energy comes from; every sensor found is recorded all the same."""

    backend: EnergySource = Field(
        default="auto",
        description="Sensor of the headline figure; auto takes the best one that measures. "
        "A null in the file, or none, measures no energy.",
    )
    calibration: Text | None = Field(
        default=None,
        description="File of gains found against an external meter, by GPU UUID or name: it "
        "corrects the GPUs' readings and narrows their systematic band.",
        examples=["calibration.yaml"],
    )

    @classmethod
    def _prepare(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        is_off = "backend" in data and data["backend"] is None
        return {**data, "backend": "none"} if is_off else data


class GpuConfig(Section):
    """The GPUs of an experiment. Limits are set for the run alone and put back after it."""

    power_limit_w: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Power limit of each GPU during the run, in W, within the range the card "
        "allows; needs the right to set it (root, mostly).",
        examples=[300],
    )
    sm_clock_mhz: int | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Clock the streaming multiprocessors are locked to during the run, in MHz, one "
        "of those the card supports; needs the right to set it.",
        examples=[1410],
    )
    devices: list[str | int] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="GPUs to use, by UUID or NVML's index (the one nvidia-smi shows); default: "
        "those CUDA_VISIBLE_DEVICES or SLURM allots, as many as the engine needs.",
        examples=[[0]],
    )

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, value: list[str | int] | None) -> list[str | int] | None:
        names = [str(name).strip() for name in value or []]
        if "" in names or any(name.startswith("-") for name in names):
            raise ValueError("must name each GPU by its UUID or its index, 0 or more")
        if len(set(names)) < len(names):
            raise ValueError("must name each GPU once")
        return value
