"""What vLLM judges of an experiment's settings without loading a model."""

from collections.abc import Mapping
from typing import Any

import vllm
from vllm.engine.arg_utils import EngineArgs

from llenergymeasure.backends.vllm.arguments import (
    beam_parameters,
    engine_arguments,
    sampling_parameters,
)
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import MAX_TOKENS
from llenergymeasure.workload.models.resolve import resolve_model

_PART_CLASSES = {
    "structured_outputs": "StructuredOutputsParams",
    "repetition_detection": "RepetitionDetectionParams",
}


def validate(config: ExperimentConfig) -> None:
    """Let vLLM raise what it has against the settings; how long an answer is, requests say."""
    source = resolve_model(config)
    EngineArgs(**engine_arguments(config, source)).create_engine_config()
    if beam_parameters(config, MAX_TOKENS) is None:
        sampling_object(sampling_parameters(config, source, MAX_TOKENS))


def sampling_object(parameters: Mapping[str, Any]) -> Any:
    """Return sampling parameters as vLLM's own type, whose parts a study gives as mappings."""
    options = dict(parameters)
    if "logit_bias" in options:
        # JSON has no keys but text.
        options["logit_bias"] = {int(token): bias for token, bias in options["logit_bias"].items()}
    for name, class_name in _PART_CLASSES.items():
        if isinstance(options.get(name), Mapping):
            options[name] = getattr(vllm.sampling_params, class_name)(**options[name])
    return vllm.SamplingParams(**options)
