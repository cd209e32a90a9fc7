"""From an experiment to what SGLang gets: engine arguments, sampling, environment."""

import os
from typing import Any

from llenergymeasure.backends.common import sampling_choice
from llenergymeasure.backends.pytorch.threads import choose_threads
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
NO_TOP_K = -1
"""What SGLang takes for the whole vocabulary."""


def given_engine(config: ExperimentConfig) -> dict[str, Any]:
    """Return the engine arguments that the study sets, ``passthrough_kwargs`` among them."""
    section = config.sglang.engine if config.sglang else None
    given = {} if section is None else section.given()
    return given | (config.passthrough_kwargs or {})


def on_cpu(config: ExperimentConfig) -> bool:
    """Whether the study asks for a CPU; SGLang takes a GPU unless configured otherwise."""
    return given_engine(config).get("device") == "cpu"


def engine_arguments(config: ExperimentConfig, source: ModelSource) -> dict[str, Any]:
    """Return the arguments of ``sglang.Engine``, less those that only a server has.

    The tokenizer is left out: prompts go in and answers come out as token ids, on every backend.
    A least length alone needs it: SGLang asks it for the tokens that end an answer.
    """
    return {
        "model_path": source.location,
        "dtype": DTYPES[config.precision],
        "random_seed": config.random_seed,
        "skip_tokenizer_init": config.fewest_tokens is None,
        **({"load_format": "dummy"} if source.random else {}),
        **given_engine(config),
    }


def sampling_parameters(config: ExperimentConfig, max_output_tokens: int) -> dict[str, Any]:
    """Return SGLang's sampling parameters for one request.

    The end of sequence is ignored where the study asks for answers of a fixed length, so that
    every run of a comparison writes exactly the tokens asked for.
    """
    decoder = config.decoder
    options: dict[str, Any] = {
        "max_new_tokens": max_output_tokens,
        **sampling_choice(decoder, greedy={"temperature": 0.0}, no_top_k=NO_TOP_K),
    }
    if config.fewest_tokens is None:
        options["ignore_eos"] = True
    else:
        options["min_new_tokens"] = min(config.fewest_tokens, max_output_tokens)
    section = config.sglang.sampling if config.sglang else None
    return options if section is None else options | section.given()


def environment(config: ExperimentConfig) -> dict[str, str]:
    """Return the variables that SGLang needs before it is imported.

    On a CPU it computes with as many threads as the pytorch backend would; ``OMP_NUM_THREADS``
    wins where it is set.
    """
    if not on_cpu(config):
        return {}
    found = {"SGLANG_USE_CPU_ENGINE": "1"}
    if "OMP_NUM_THREADS" not in os.environ:
        architecture = resolve_model(config).architecture
        parameters = None if architecture is None else architecture.parameters()
        threads = choose_threads(parameters, asked=None, on_gpu=False)
        found["OMP_NUM_THREADS"] = str(threads)
    return found
