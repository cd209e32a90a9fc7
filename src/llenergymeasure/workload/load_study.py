"""Reading a study with all that is known of its models, so that what cannot be is left out."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llenergymeasure.config.conflicting_settings import Shape
from llenergymeasure.config.expansion import expand
from llenergymeasure.config.study import Study
from llenergymeasure.config.study_document import (
    Document,
    document_from,
    read_document,
    with_overrides,
)
from llenergymeasure.errors import LlemError
from llenergymeasure.workload.models.known import known_architecture
from llenergymeasure.workload.models.resolve import (
    architecture_in_folder,
    looks_like_folder,
    to_shape,
)


def load_study(path: Path | str, overrides: Mapping[str, Any] | None = None) -> Study:
    """Return the study that a file describes, checked against its models' shapes.

    Args:
        path: the study file.
        overrides: dotted keys and their values, which win over the file.

    Raises:
        ConfigurationError: the study cannot be used; it names every problem found.
    """
    return _study(read_document(Path(path)), overrides)


def study_from_mapping(
    mapping: Mapping[str, Any],
    origin: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Study:
    """Return the study that a mapping describes, checked against its models' shapes.

    Args:
        mapping: the study.
        origin: the file it stands for: ``base`` is relative to it, and it gives the name.
        overrides: dotted keys and their values, which win over the mapping.

    Raises:
        ConfigurationError: the study cannot be used; it names every problem found.
    """
    return _study(document_from(mapping, origin), overrides)


def _study(document: Document, overrides: Mapping[str, Any] | None) -> Study:
    return expand(with_overrides(document, overrides) if overrides else document, model_shape)


@lru_cache(maxsize=1024)
def model_shape(model: str) -> Shape | None:
    """Return the shape of a model, from the built-in table or a local folder; else None.

    Nothing is fetched, and no cache is asked: a plan must not depend on what was fetched before.
    """
    if looks_like_folder(model):
        try:
            architecture = architecture_in_folder(model)
        except LlemError:
            return None  # Preflight says what is wrong with the folder.
    else:
        architecture = known_architecture(model)
    return None if architecture is None else to_shape(architecture)
