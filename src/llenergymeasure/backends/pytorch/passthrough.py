"""Arguments a study hands to transformers as they are: which go to loading, which to generation.

They are the parameters under ``pytorch`` that have no field of their own, checked against
what transformers takes when the study was read, and ``passthrough_kwargs``, unchecked, which win.
"""

from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig


def loading_arguments(config: ExperimentConfig) -> dict[str, Any]:
    """Return those that ``from_pretrained`` takes: all that generation does not know."""
    known = _generation_names()
    return {key: value for key, value in _passed(config).items() if key not in known}


def generation_arguments(config: ExperimentConfig) -> dict[str, Any]:
    """Return those that are fields of transformers' ``GenerationConfig``."""
    known = _generation_names()
    return {key: value for key, value in _passed(config).items() if key in known}


def _passed(config: ExperimentConfig) -> dict[str, Any]:
    knobs = {} if config.pytorch is None else config.pytorch.extras()
    return {**knobs, **(config.passthrough_kwargs or {})}


def _generation_names() -> frozenset[str]:
    from transformers import GenerationConfig

    return frozenset(GenerationConfig().to_dict())
