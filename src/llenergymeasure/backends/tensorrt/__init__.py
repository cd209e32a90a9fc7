"""TensorRT-LLM: on PyTorch or with compiled engines, in process or as its own server.

Written against its published sources and never run: no release was at hand.
"""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.tensorrt.arguments import find_problems, server_command
from llenergymeasure.backends.tensorrt.build_cache import environment

BACKEND: Backend = EnginePackage(
    name="tensorrt",
    engine="TensorRTEngine",
    checks=find_problems,
    command=server_command,
    packages=(
        "tensorrt_llm",
        "tensorrt",
        "torch",
        "transformers",
        "flashinfer-python",
        "nvidia-modelopt",
        "xgrammar",
    ),
    study_keys={
        "dtype": "precision",
        "backend": "tensorrt.engine.backend",
        "skip_tokenizer_init": "nothing: prompts and answers are token ids",
    },
    environment=environment,
)
