"""How a study is carried out: cycles, their order, the rests between, and where engines run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from llenergymeasure.config.section import Seconds, Section, Seed
from llenergymeasure.units import BACKENDS, BackendName, RunnerName

CycleOrder = Literal["sequential", "interleaved", "shuffled", "reverse", "latin_square"]

DEFAULT_CYCLES = 3
MAX_CYCLES = 10_000

PILOT_CYCLES = 5
"""Cycles of the pilot, from which a precision target determines the total number."""

DEFAULT_MAX_CYCLES = 20

_IMAGE = re.compile(r"(?:[a-z]+://)?[A-Za-z0-9./_~][A-Za-z0-9./_~:@+=-]*")
_IMAGE_FILE = re.compile(r"[./~][^\0\n]*[^\0\n\s]")
"""A file may have any name, spaces included."""


class ExecutionConfig(Section):
    """How the runs of a study follow each other. None of it is part of an experiment's id."""

    n_cycles: int | None = Field(
        default=None,
        ge=1,
        le=MAX_CYCLES,
        description="Times each experiment is run; default 3, or what the protocol asks for.",
    )
    precision_target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Run each experiment until the 95 % interval of its energy per output token "
        "is this narrow: half its width over the mean. Five pilot cycles show how many it takes; "
        "the number is then fixed.",
        examples=[0.02],
    )
    max_cycles: int | None = Field(
        default=None,
        ge=PILOT_CYCLES,
        le=MAX_CYCLES,
        description="The most cycles an experiment is given for precision_target; default 20.",
        examples=[20],
    )
    cycle_order: CycleOrder = Field(
        default="shuffled",
        description="sequential: all cycles of one experiment, then the next; interleaved: one "
        "cycle of all, then the next; shuffled: interleaved, each cycle in its own random order; "
        "reverse: interleaved, every second cycle backwards; latin_square: each experiment takes "
        "each place, and follows each other one, equally often.",
    )
    experiment_gap_seconds: Seconds | None = Field(
        default=None, description="Rest where the experiment changes; default 0."
    )
    cycle_gap_seconds: Seconds | None = Field(
        default=None, description="Rest where the cycle changes; default 0."
    )
    shuffle_seed: Seed | None = Field(
        default=None,
        description="Seed of the shuffled order; default: taken from the study's design hash.",
    )
    share_server: bool | None = Field(
        default=None,
        description="true: experiments of a cycle that differ in their traffic alone (serving, "
        "slo) are measured one after the other on one start of their server, and stay together in "
        "the order. Runs of one machine, one at a time, in a container with the meter inside or "
        "without one; elsewhere each starts its own.",
        examples=[True],
    )
    skip_preflight: bool = Field(
        default=False, description="Start runs without checking the machine first."
    )
    meter: Literal["inside", "host"] = Field(
        default="inside",
        description="Where the meter of a run in a container works. inside: in the image, next to "
        "the engine; host: on this machine, around the container, for an image that cannot hold "
        "it (no pyarrow, no nvidia-ml-py).",
    )
    pin: Literal["node", "gpu_model"] | None = Field(
        default=None,
        description="Keep all runs on one machine (node) or on one model of GPU; the first run "
        "decides which, and a run elsewhere refuses to begin.",
        examples=["node"],
    )
    pin_scope: Literal["study", "experiment"] | None = Field(
        default=None,
        description="What pin keeps together; default study. experiment: each experiment for "
        "itself, so that experiments cannot be compared without the machines' difference.",
        examples=["experiment"],
    )
    run_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=10 * 86_400,
        description="Wall-clock limit of one run, from when it has its GPUs.",
    )

    def _contradictions(self) -> Iterator[str]:
        if self.precision_target is None and self.max_cycles is not None:
            yield "max_cycles needs precision_target; n_cycles sets a fixed number"
        if self.precision_target is not None and self.n_cycles is not None:
            yield "give n_cycles or precision_target: the target sets the cycles itself"
        if self.pin is None and self.pin_scope is not None:
            yield "pin_scope needs pin: node or gpu_model"
        if self.share_server and self.cycle_order in ("sequential", "latin_square"):
            yield (
                f"share_server keeps a cycle's runs on one server together, cycle_order: "
                f"{self.cycle_order} does not; choose shuffled, interleaved or reverse"
            )

    @property
    def cycles_at_most(self) -> int | None:
        """The most cycles of an experiment under a precision target; None without one."""
        if self.precision_target is None:
            return None
        return DEFAULT_MAX_CYCLES if self.max_cycles is None else self.max_cycles


@dataclass(frozen=True)
class RunnerChoice:
    """Where a backend's runs happen.

    Attributes:
        runner: ``local``, ``apptainer`` or ``docker``.
        image: the image, if one is named.
        reason: who chose it, as the end of a sentence.
    """

    runner: RunnerName = "local"
    image: str | None = None
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the choice as it is written in a study."""
        return self.runner if self.image is None else f"{self.runner}:{self.image}"


Runners = dict[BackendName, RunnerChoice]


def runner_choice(value: Any) -> RunnerChoice:
    """Return the runner that ``local``, ``docker`` or ``docker:IMAGE`` means.

    Raises:
        ValueError: it is none of them; the message says what would do.
    """
    if isinstance(value, RunnerChoice):
        return value
    name, colon, image = value.partition(":") if isinstance(value, str) else ("", "", "")
    if name == "local" and not colon:
        return RunnerChoice()
    if name not in ("docker", "apptainer"):
        raise ValueError(_RUNNER_FORMS)
    runner: RunnerName = "docker" if name == "docker" else "apptainer"
    if not colon:
        return RunnerChoice(runner)
    is_file = name == "apptainer" and _IMAGE_FILE.fullmatch(image)
    if not is_file and not _IMAGE.fullmatch(image):
        raise ValueError(f"names no valid image after {name}; it {_RUNNER_FORMS}")
    return RunnerChoice(runner, image)


_RUNNER_FORMS = "must be local, docker, docker:IMAGE, apptainer or apptainer:IMAGE"

_Runner = Annotated[
    RunnerChoice,
    PlainValidator(
        runner_choice,
        json_schema_input_type=Annotated[
            str, Field(pattern="^(local|docker(:.+)?|apptainer(:.+)?)$")
        ],
    ),
]


class RunnersConfig(Section):
    """Where each backend runs: local, docker, docker:IMAGE, apptainer or apptainer:IMAGE."""

    pytorch: _Runner | None = Field(None, description="Where it runs; default: where it is found.")
    vllm: _Runner | None = Field(None, description="Where it runs; default: where it is found.")
    sglang: _Runner | None = Field(None, description="Where it runs; default: where it is found.")
    tensorrt: _Runner | None = Field(None, description="Where it runs; default: where it is found.")
    openai: _Runner | None = Field(None, description="Where it runs; default: where it is found.")

    def choices(self) -> Runners:
        """Return the runners that are set, by backend."""
        runners = {name: getattr(self, name) for name in BACKENDS}
        return {name: choice for name, choice in runners.items() if choice is not None}
