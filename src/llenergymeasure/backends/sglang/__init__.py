"""SGLang: batches through its engine in processes of its own, or its own server."""

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.engine_package import ValidatingPackage
from llenergymeasure.backends.sglang.arguments import (
    environment,
    find_problems,
    server_command,
)

BACKEND: Backend = ValidatingPackage(
    name="sglang",
    engine="SGLangEngine",
    checks=find_problems,
    command=server_command,
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
    study_keys={"dtype": "precision", "random_seed": "random_seed"},
    environment=environment,
)
