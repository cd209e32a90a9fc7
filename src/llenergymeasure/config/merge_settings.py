"""How settings from several places are combined: sections merge, other values are replaced."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from llenergymeasure.config.experiment import SYNTHETIC, ExperimentConfig
from llenergymeasure.config.fields import submodels, takes_any_key
from llenergymeasure.config.study_file import StudyFile

Assignments = Mapping[tuple[str, ...], Any]


def merge(
    base: Mapping[str, Any], changes: Mapping[str, Any], model: type[BaseModel] = ExperimentConfig
) -> dict[str, Any]:
    """Return ``base`` updated with ``changes``; a null in ``changes`` unsets."""
    result = dict(base)
    for key, value in changes.items():
        section = _section(model, key)
        current = result.get(key)
        if section is not None and isinstance(value, Mapping) and isinstance(current, Mapping):
            result[key] = merge(current, value, section)
        else:
            result[key] = value
    return result


class NotASectionError(ValueError):
    """A path leads through something that is set to a plain value."""

    def __init__(self, path: tuple[str, ...], part: str) -> None:
        """Store the path, and the part of it that is no section."""
        super().__init__(
            f"cannot be set, for {part} is set to a plain value; write {part} as a mapping"
        )
        self.path = path


def assign(values: Mapping[str, Any], assignments: Assignments) -> dict[str, Any]:
    """Return ``values`` with each path in ``assignments`` set, sections made where missing.

    Raises:
        NotASectionError: a path leads through a plain value.
    """
    result = dict(values)
    for path, value in assignments.items():
        section = result
        model: type[BaseModel] | None = ExperimentConfig
        for part in path[:-1]:
            nested = section.get(part)
            if part == "dataset" and nested == SYNTHETIC:
                nested = None
            if nested is not None and not isinstance(nested, Mapping):
                raise NotASectionError(path, part)
            section[part] = dict(nested or {})
            section = section[part]
            model = None if model is None else _section(model, part)
        change = {path[-1]: value}
        section.update(change if model is None else merge(section, change, model))
    if any(path[0] == "dataset" and len(path) > 1 for path in assignments):
        _complete_dataset(result, values.get("dataset"))
    return result


def _complete_dataset(result: dict[str, Any], previous: Any) -> None:
    """Give a data set that was plain ``synthetic`` the lengths that word stands for."""
    if previous not in (None, SYNTHETIC) or not isinstance(result.get("dataset"), dict):
        return
    for name, source in (
        ("input_len", "max_input_tokens"),
        ("output_len", "max_output_tokens"),
        ("seed", "random_seed"),
    ):
        if result.get(source) is not None:
            result["dataset"].setdefault(name, result[source])


def flatten(
    values: Mapping[str, Any], model: type[BaseModel] = ExperimentConfig
) -> dict[tuple[str, ...], Any]:
    """Return each setting in ``values`` under its path; free mappings are not split."""
    settings: dict[tuple[str, ...], Any] = {}
    for key, value in values.items():
        section = _section(model, key)
        if section is not None and isinstance(value, Mapping):
            inner = flatten(value, section)
            settings |= {(key, *path): item for path, item in inner.items()}
        else:
            settings[key,] = value
    return settings


@lru_cache(maxsize=4096)
def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    field = model.model_fields.get(key)
    if field is None and model is ExperimentConfig:
        field = StudyFile.model_fields.get(key)
    if field is None or key == "dataset" or takes_any_key(field.annotation):
        return None
    models = submodels(field.annotation)
    return models[0] if models else None
