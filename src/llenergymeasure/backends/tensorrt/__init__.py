"""TensorRT-LLM: on PyTorch or with compiled engines, in process or as its own server.

Written against its published sources and never run: no release was at hand.
"""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.tensorrt.build_cache import environment

_PACKAGES = (
    "tensorrt_llm",
    "tensorrt",
    "torch",
    "transformers",
    "flashinfer-python",
    "nvidia-modelopt",
    "xgrammar",
)

BACKEND: Backend = EnginePackage("tensorrt", "TensorRTEngine", _PACKAGES, environment)
