"""SGLang: batches through its engine in processes of its own, or its own server."""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.sglang.arguments import environment

_PACKAGES = (
    "sglang",
    "sglang-kernel",
    "sgl-kernel",
    "flashinfer-python",
    "torch",
    "transformers",
    "triton",
    "xgrammar",
)

BACKEND: Backend = EnginePackage("sglang", "SGLangEngine", _PACKAGES, environment)
