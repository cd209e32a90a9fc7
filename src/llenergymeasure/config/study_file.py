"""The study file as one model: a section of a study is a field here and a module of its own.

A file is read, expanded and checked by ``workload/load_study.py``.
"""

import os
import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from llenergymeasure.config.carbon import CarbonConfig
from llenergymeasure.config.execution import ExecutionConfig, RunnersConfig
from llenergymeasure.config.fields import unknown_settings
from llenergymeasure.config.notify import NotifyConfig
from llenergymeasure.config.quality import QualityConfig
from llenergymeasure.config.section import Fault, RunSection, Section, Text, refused
from llenergymeasure.config.sweep import (
    MAX_POINTS,
    Axis,
    backends_named,
    backends_scoped,
    count_points,
    no_backend,
    parse_axes,
)
from llenergymeasure.units import BACKENDS, BackendName

MAX_NAME_BYTES = 120


def study_name(given: str) -> str:
    """Return ``given`` as a folder's name: letters, digits, ``.``, ``-`` and ``_``.

    Raises:
        ValueError: it is empty, too long, or holds what could lead to another folder.
    """
    if not given.strip():
        raise ValueError("must not be empty")
    if any(not char.isprintable() for char in given):
        raise ValueError("must not hold line breaks or control characters")
    if "/" in given or "\\" in given:
        raise ValueError("must be a plain name, not a path: remove / and \\; output_dir says where")
    if given.strip().startswith("."):
        raise ValueError("must not start with a dot")
    name = re.sub(r"[^\w.-]+", "-", given.strip()).strip("-")
    if not re.search(r"\w", name):
        raise ValueError("must hold a letter or digit")
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        message = "cannot be a folder's name in this locale; use plain letters, or LC_ALL=C.UTF-8"
        raise ValueError(message) from None
    if length > MAX_NAME_BYTES:
        raise ValueError(f"must be no longer than {MAX_NAME_BYTES} bytes")
    return name


def _folder(given: str) -> str:
    if not given.strip() or not given.isprintable():
        raise ValueError("must be the path of a folder")
    return given


def _listed(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


def _axes(sweep: Any) -> tuple[Axis, ...]:
    return parse_axes(sweep, reserved=set(StudyFile.model_fields) - {"backend"})


def _entry(values: dict[str, Any]) -> dict[str, Any]:
    faults = list(unknown_settings(values))
    backend = values.get("backend")
    if backend is not None and backend not in BACKENDS:
        faults.append(Fault(("backend",), no_backend(backend), backend))
    if faults:
        raise refused(faults)
    return values


class StudyFile(Section):
    """What to measure: shared settings, a sweep over some, explicit experiments.

    What has no field here is a setting that all experiments share. It is checked as a part of each.
    """

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, AfterValidator(study_name)] = Field(
        description="Name of the study and of its results folder; default: the file's.",
        json_schema_extra={"minLength": 1, "maxLength": 120, "pattern": r"^[^/\\.][^/\\]*$"},
    )
    base: Text | None = Field(
        default=None, description="Study file to start from, relative to this one."
    )
    backend: Annotated[
        list[BackendName],
        BeforeValidator(
            _listed,
            json_schema_input_type=BackendName | Annotated[list[BackendName], Field(min_length=1)],
        ),
    ] = Field(
        default_factory=list,
        min_length=1,
        description="Engine that runs the model; default pytorch. A list compares several.",
    )
    sweep: Annotated[
        tuple[Axis, ...], PlainValidator(_axes, json_schema_input_type=dict[str, Any])
    ] = Field(
        default_factory=tuple,
        description="What varies: every combination is an experiment. A key that starts with a "
        "backend's name applies to that backend alone: pytorch.precision is the precision there.",
    )
    experiments: list[Annotated[dict[str, Any], AfterValidator(_entry)]] = Field(
        default_factory=list,
        min_length=1,
        max_length=MAX_POINTS,
        description="Explicit experiments, merged over the shared settings.",
    )
    output_dir: Annotated[str, AfterValidator(_folder)] | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Folder the study's results go under; not part of what is measured.",
    )
    runners: RunnersConfig = Field(
        default_factory=RunnersConfig,
        description="Where each backend runs; default: where its engine is found.",
    )
    execution: ExecutionConfig = Field(
        default_factory=ExecutionConfig, description="How the runs follow each other."
    )
    notify: NotifyConfig | None = Field(default=None, description="Whom to notify of the end.")
    carbon: CarbonConfig | None = Field(default=None, description="Carbon and cost of the energy.")
    quality: QualityConfig | None = Field(default=None, description="Quality of the answers.")

    @model_validator(mode="before")
    @classmethod
    def _set_values(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Leave out what is None; a sweep or a list without anything below it is a mistake."""
        blank = ("sweep", "experiments")
        return {key: each for key, each in data.items() if each is not None or key in blank}

    @model_validator(mode="after")
    def _grid_can_be_made(self) -> Self:
        faults = []
        named = backends_named(self.sweep)
        if named and len(self.backend) > 1:
            faults.append(Fault(("backend",), "is a list here and in the sweep; keep one", ...))
        used = self.grid_backends
        for name, label in backends_scoped(self.sweep).items():
            if name not in used:
                message = (
                    f"sweeps {name}, which the study does not use: backend is "
                    f"{', '.join(used)}; add {name} to backend or remove this key"
                )
                faults.append(Fault(("sweep", label), message, ...))
        count = 0 if faults else count_points(self.sweep, used)
        if count > MAX_POINTS:
            message = f"makes a grid of {count} points; at most {MAX_POINTS} can be planned"
            faults.append(Fault(("sweep",), message, ...))
        if faults:
            raise refused(faults)
        return self

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all experiments share, without their backend."""
        return dict(self.model_extra or {})

    @property
    def shared_backends(self) -> list[BackendName]:
        """The backends of experiments that name none."""
        return list(dict.fromkeys(self.backend)) or ["pytorch"]

    @property
    def grid_backends(self) -> list[BackendName]:
        """The backends of the grid: named by an axis, shared, or those whose settings are swept."""
        named, scoped = backends_named(self.sweep), list(backends_scoped(self.sweep))
        return named or ([] if self.backend else scoped) or self.shared_backends

    @property
    def has_grid(self) -> bool:
        """Whether there are experiments that the list does not name."""
        return bool(self.sweep) or not self.experiments

    @property
    def used_backends(self) -> list[BackendName]:
        """The backends that the grid and the listed experiments have points of."""
        used = dict.fromkeys(self.grid_backends if self.has_grid else [])
        for entry in self.experiments:
            given = entry.get("backend")
            used |= dict.fromkeys(self.shared_backends if given is None else [given])
        return list(used)

    def for_runs(self) -> dict[str, dict[str, Any]]:
        """Return the sections that each run is given, by name, as plain values."""
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: each.for_run() for name, each in parts.items() if isinstance(each, RunSection)
        }


OF_A_STUDY = tuple(StudyFile.model_fields)
"""The keys that are a study's own, and no setting of its experiments."""
