"""From an experiment to what SGLang gets: arguments, sampling, environment; why it cannot run."""

from collections.abc import Iterator
from typing import Any

from llenergymeasure.backends.common import (
    DTYPES,
    answer_length,
    given_engine,
    given_sampling,
    sampling_choice,
)
from llenergymeasure.backends.cpu_threads import threads_variable
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.inventory import discover, visible
from llenergymeasure.workload.models.resolve import ModelSource

_NO_TOP_K = -1
"""What SGLang takes for the whole vocabulary."""


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
    """Return SGLang's sampling parameters for one request."""
    return {
        **answer_length(config, max_output_tokens, most="max_new_tokens", least="min_new_tokens"),
        **sampling_choice(config.decoder, greedy={"temperature": 0.0}, no_top_k=_NO_TOP_K),
        **given_sampling(config),
    }


def environment(config: ExperimentConfig) -> dict[str, str]:
    """Return the variables that SGLang needs before it is imported.

    On a CPU it computes with as many threads as the pytorch backend would; ``OMP_NUM_THREADS``
    wins where it is set.
    """
    return {"SGLANG_USE_CPU_ENGINE": "1", **threads_variable(config)} if on_cpu(config) else {}


def find_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that there is no GPU, unless the study asks for another device."""
    device = given_engine(config).get("device")
    if device in (None, "cuda") and not visible(discover()).gpus:
        yield Problem(
            "SGLang needs an NVIDIA GPU, and none is visible here; on a CPU, which SGLang supports "
            "in part, set it to cpu",
            key="sglang.engine.device",
            found=device,
        )
