"""Arguments a study hands to transformers as they are: which go to loading, which to generation.

They are the parameters under ``pytorch`` that have no field of their own, checked against
what transformers takes when the study was read, and ``passthrough_kwargs``, unchecked, which win.
"""

from typing import Any

from llenergymeasure.config.engine_parameters.reserved import COUNTED, NAMED_IN_STUDY
from llenergymeasure.config.experiment import ExperimentConfig

RESERVED = {
    **NAMED_IN_STUDY,
    "num_beams": "pytorch.num_beams",
    "use_cache": "pytorch.use_cache",
    "cache_implementation": "pytorch.cache_implementation",
    "early_stopping": "pytorch.early_stopping",
    "length_penalty": "pytorch.length_penalty",
    "no_repeat_ngram_size": "pytorch.no_repeat_ngram_size",
    "prompt_lookup_num_tokens": "pytorch.prompt_lookup_num_tokens",
    "attn_implementation": "pytorch.attn_implementation",
    "device_map": "pytorch.device_map",
    "max_memory": "pytorch.max_memory",
    "revision": "pytorch.revision",
    "trust_remote_code": "pytorch.trust_remote_code",
    "load_in_4bit": "pytorch.load_in_4bit",
    "load_in_8bit": "pytorch.load_in_8bit",
}
"""Arguments with a name of their own in the study, which must be used instead."""

FORBIDDEN = frozenset({*COUNTED, "tp_plan", "tp_size"})
"""Arguments that would change what is counted as output, or how many processes are used."""


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
