"""From a study file, or a mapping made in a program, to a study that can be planned."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.config import strict_yaml
from llenergymeasure.config.document import document_from, overridden, read_document
from llenergymeasure.config.expansion import ShapeOf, expand
from llenergymeasure.config.study import Study
from llenergymeasure.errors import ConfigurationError, Problem


def load_study(
    path: Path | str,
    overrides: Mapping[str, Any] | None = None,
    shape_of: ShapeOf | None = None,
) -> Study:
    """Return the study that a file describes.

    Args:
        path: the study file.
        overrides: dotted keys and their values, which win over the file.
        shape_of: gives a model's shape by its name, for rules that need it.

    Raises:
        ConfigurationError: the study cannot be used; it names every problem found.
    """
    document = read_document(Path(path))
    return expand(overridden(document, overrides) if overrides else document, shape_of)


def study_from_mapping(
    mapping: Mapping[str, Any],
    origin: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    shape_of: ShapeOf | None = None,
) -> Study:
    """Return the study that a mapping describes; the same keys as in a file.

    Args:
        mapping: the study.
        origin: the file it stands for: ``base`` is relative to it, and it gives the name.
        overrides: dotted keys and their values, which win over the mapping.
        shape_of: gives a model's shape by its name, for rules that need it.

    Raises:
        ConfigurationError: the study cannot be used; it names every problem found.
    """
    document = document_from(mapping, origin)
    return expand(overridden(document, overrides) if overrides else document, shape_of)


def parse_overrides(arguments: Iterable[str]) -> dict[str, Any]:
    """Return ``key=value`` arguments as a mapping, the values read as YAML.

    Raises:
        ConfigurationError: an argument has no ``=``, or its value is not strict YAML.
    """
    overrides: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.strip():
            message = "must be KEY=VALUE, such as n=16 or decoder.temperature=0"
            raise ConfigurationError(Problem(message, found=argument))
        try:
            overrides[key.strip()] = strict_yaml.parse(text.encode())[0]
        except ConfigurationError as error:
            message = error.problems[0].message
            raise ConfigurationError(Problem(message, key=key.strip(), found=text)) from None
    return overrides
