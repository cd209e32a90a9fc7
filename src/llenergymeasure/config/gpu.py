"""Which GPUs an experiment uses, and at what power limit and clock."""

from pydantic import Field, field_validator

from llenergymeasure.config.section import Section


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
    def _each_once(cls, value: list[str | int] | None) -> list[str | int] | None:
        names = [str(name).strip() for name in value or []]
        if "" in names or any(name.startswith("-") for name in names):
            raise ValueError("must name each GPU by its UUID or its index, 0 or more")
        if len(set(names)) < len(names):
            raise ValueError("must name each GPU once")
        return value
