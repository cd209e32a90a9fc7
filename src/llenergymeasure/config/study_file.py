"""The study file as one model: a section of a study is a field here and a module of its own.

A file is read, expanded and checked by ``workload/load_study.py``.
"""

import os
import re
from collections.abc import Mapping
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
from llenergymeasure.config.section import Fault, RunSection, Section, Text, rejection
from llenergymeasure.config.sweep import (
    MAX_POINTS,
    Axis,
    backends_named,
    backends_scoped,
    count_points,
    parse_axes,
    unknown_backend_message,
)
from llenergymeasure.units import BACKENDS, BackendName

MAX_NAME_BYTES = 120


def study_name(text: str) -> str:
    """Return ``text`` as a folder's name: letters, digits, ``.``, ``-`` and ``_``.

    Raises:
        ValueError: it is empty, too long, or holds what could lead to another folder.
    """
    if not text.strip():
        raise ValueError("must not be empty")
    if any(not char.isprintable() for char in text):
        raise ValueError("must not hold line breaks or control characters")
    if "/" in text or "\\" in text:
        raise ValueError("must be a plain name, not a path: remove / and \\; output_dir says where")
    if text.strip().startswith("."):
        raise ValueError("must not start with a dot")
    name = re.sub(r"[^\w.-]+", "-", text.strip()).strip("-")
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


def _check_folder(path: str) -> str:
    if not path.strip() or not path.isprintable():
        raise ValueError("must be the path of a folder")
    return path


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _parse_sweep(sweep: Any) -> tuple[Axis, ...]:
    return parse_axes(sweep, reserved=set(StudyFile.model_fields) - {"backend"})


def _check_entry(values: dict[str, Any]) -> dict[str, Any]:
    faults = list(unknown_settings(values))
    backend = values.get("backend")
    if backend is not None and backend not in BACKENDS:
        faults.append(Fault(("backend",), unknown_backend_message(backend), backend))
    if faults:
        raise rejection(faults)
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
            _as_list,
            json_schema_input_type=BackendName | Annotated[list[BackendName], Field(min_length=1)],
        ),
    ] = Field(
        default_factory=list,
        min_length=1,
        description="Engine that runs the model; default pytorch. A list compares several.",
    )
    sweep: Annotated[
        tuple[Axis, ...], PlainValidator(_parse_sweep, json_schema_input_type=dict[str, Any])
    ] = Field(
        default_factory=tuple,
        description="What varies: every combination is an experiment. A key that starts with a "
        "backend's name applies to that backend alone: pytorch.precision is the precision there.",
    )
    experiments: list[Annotated[dict[str, Any], AfterValidator(_check_entry)]] = Field(
        default_factory=list,
        min_length=1,
        max_length=MAX_POINTS,
        description="Explicit experiments, merged over the shared settings.",
    )
    output_dir: Annotated[str, AfterValidator(_check_folder)] | None = Field(
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
        not_null = ("sweep", "experiments")
        return {key: value for key, value in data.items() if value is not None or key in not_null}

    @model_validator(mode="after")
    def _check_grid(self) -> Self:
        faults = []
        swept = backends_named(self.sweep)
        if swept and len(self.backend) > 1:
            faults.append(Fault(("backend",), "is a list here and in the sweep; keep one", ...))
        backends = self.grid_backends
        for name, label in backends_scoped(self.sweep).items():
            if name not in backends:
                message = (
                    f"sweeps {name}, which the study does not use: backend is "
                    f"{', '.join(backends)}; add {name} to backend or remove this key"
                )
                faults.append(Fault(("sweep", label), message, ...))
        count = 0 if faults else count_points(self.sweep, backends)
        if count > MAX_POINTS:
            message = f"makes a grid of {count} points; at most {MAX_POINTS} can be planned"
            faults.append(Fault(("sweep",), message, ...))
        if faults:
            raise rejection(faults)
        return self

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all experiments share, without their backend."""
        return dict(self.model_extra or {})

    @property
    def shared_backends(self) -> list[BackendName]:
        """The backends of experiments that name none."""
        return list(dict.fromkeys(self.backend)) or ["pytorch"]

    def entry_backends(self, entry: Mapping[str, Any]) -> list[BackendName]:
        """Return the backends of a listed experiment: its own one, or the shared ones."""
        backend = entry.get("backend")
        return self.shared_backends if backend is None else [backend]

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
        backends = dict.fromkeys(self.grid_backends if self.has_grid else [])
        for entry in self.experiments:
            backends |= dict.fromkeys(self.entry_backends(entry))
        return list(backends)

    def for_runs(self) -> dict[str, dict[str, Any]]:
        """Return the sections that each run is given, by name, as plain values."""
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: part.for_run() for name, part in sections.items() if isinstance(part, RunSection)
        }


STUDY_KEYS = tuple(StudyFile.model_fields)
"""The keys that are a study's own, and no setting of its experiments."""
