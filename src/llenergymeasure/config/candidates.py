"""The configurations that a study asks for: the points of its grid, and the listed experiments."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llenergymeasure.config.merge_settings import NotASectionError, assign, flatten, merge
from llenergymeasure.config.section import Fault
from llenergymeasure.config.strict_yaml import KeyPath
from llenergymeasure.config.study_file import StudyFile
from llenergymeasure.config.sweep import points
from llenergymeasure.units import BACKENDS, BackendName


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration to try, and where each of its own settings was written."""

    values: dict[str, Any]
    places: Mapping[tuple[str, ...], KeyPath]
    failure: Fault | None = None


def candidates(study: StudyFile, overrides: Mapping[tuple[str, ...], Any]) -> Iterator[Candidate]:
    """Yield the grid's points, then the listed experiments, each with its overrides."""
    grid = _grid_candidates(study) if study.has_grid else ()
    for candidate in itertools.chain(grid, _listed_candidates(study)):
        yield _with_overrides(candidate, overrides)


def _with_overrides(candidate: Candidate, overrides: Mapping[tuple[str, ...], Any]) -> Candidate:
    settings = {
        path: value
        for path, value in overrides.items()
        if path[0] not in BACKENDS or path[0] == candidate.values["backend"]
    }
    if not settings or candidate.failure is not None:
        return candidate
    places = {path: written for path, written in candidate.places.items() if path not in settings}
    try:
        return Candidate(assign(candidate.values, settings), places)
    except NotASectionError as error:
        return replace(candidate, failure=_not_a_section_fault(error))


def _grid_candidates(study: StudyFile) -> Iterator[Candidate]:
    backends = study.grid_backends
    bases = {name: _shared_settings(study, name) for name in backends}
    for point in points(study.sweep, backends):
        values = {**bases[point.backend], "backend": point.backend}
        try:
            yield Candidate(assign(values, point.settings), point.places)
        except NotASectionError as error:
            settings = {".".join(path): value for path, value in point.settings.items()}
            yield Candidate({**values, **settings}, point.places, _not_a_section_fault(error))


def _not_a_section_fault(error: NotASectionError) -> Fault:
    """Return what is wrong; only a data set may be a plain value in another point."""
    return Fault(error.path, str(error), ..., standalone=error.path[0] != "dataset")


def _listed_candidates(study: StudyFile) -> Iterator[Candidate]:
    bases = {name: _shared_settings(study, name) for name in BACKENDS}
    for index, entry in enumerate(study.experiments):
        places: dict[tuple[str, ...], KeyPath] = {
            path: ("experiments", index, *path) for path in flatten(entry)
        }
        for backend in study.entry_backends(entry):
            yield Candidate({**merge(bases[backend], entry), "backend": backend}, places)


def _shared_settings(study: StudyFile, backend: BackendName) -> dict[str, Any]:
    """Return the shared settings without the sections of other backends."""
    return {
        key: value for key, value in study.shared.items() if key not in BACKENDS or key == backend
    }
