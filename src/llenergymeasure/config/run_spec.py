"""The specification of one run: all that the planner passes to a run's process."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from llenergymeasure.units import BackendName, RunnerName

SPEC_VERSION = 1


class RunSpec(BaseModel):
    """One cycle of one experiment, ready to run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SPEC_VERSION
    study: str
    study_design_hash: str
    experiment: str = Field(pattern=r"^[0-9a-f]{12}$")
    cycle: int = Field(ge=1)
    order: int = Field(ge=1, description="place in the planned order, from 1")
    backend: BackendName
    runner: RunnerName
    config: dict[str, Any] = Field(description="the resolved experiment: only what is set")
    gap_s: float = Field(default=0.0, ge=0, description="rest before this run")
    timeout_s: float | None = Field(default=None, gt=0, description="wall-clock limit")
    session: int | None = Field(
        default=None, ge=1, description="which runs may share its server: those of its number"
    )
    skip_preflight: bool = False
    pin: Literal["node", "gpu_model"] | None = Field(
        default=None, description="what all runs have to share"
    )
    pin_scope: Literal["study", "experiment"] | None = None
    sections: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="the study's own sections that runs are given"
    )
    swept: dict[str, Any] = Field(
        default_factory=dict, description="the settings the study sweeps, by dotted key"
    )
