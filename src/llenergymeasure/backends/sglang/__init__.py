"""SGLang: batches through its engine in processes of its own, or its own server."""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import EnginePackage
from llenergymeasure.backends.sglang.arguments import environment
from llenergymeasure.installation import engine_install

BACKEND: Backend = EnginePackage(
    name="sglang",
    module="sglang",
    remedy=f"{engine_install('sglang')}, in an environment of its own, or use runner: docker or "
    "apptainer",
    engine="SGLangEngine",
    packages=(
        "sglang",
        "sglang-kernel",
        "sgl-kernel",
        "flashinfer-python",
        "torch",
        "transformers",
        "triton",
        "xgrammar",
    ),
    named={"dtype": "precision", "random_seed": "random_seed"},
    environment=environment,
)
