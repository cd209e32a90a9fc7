"""Why a configuration cannot run here, found without importing SGLang."""

from collections.abc import Iterator
from importlib.util import find_spec

from llenergymeasure.backends.common import adapter_problems, passthrough_problems
from llenergymeasure.backends.sglang.arguments import given_engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.installation import engine_install
from llenergymeasure.machine.gpus.inventory import discover, visible

_OURS = {
    "dtype": "precision",
    "random_seed": "random_seed",
}


def find_problems(config: ExperimentConfig) -> list[Problem]:
    """Return all reasons at once; none if it can run."""
    return [
        *_package(),
        *_device(config),
        *adapter_problems(config),
        *passthrough_problems(config, _OURS),
    ]


def _package() -> Iterator[Problem]:
    if find_spec("sglang") is None:
        yield Problem(
            f"sglang not installed: {engine_install('sglang')}, in an environment of its own, "
            "or use runner: docker or apptainer",
            key="backend",
            found="sglang",
        )


def _device(config: ExperimentConfig) -> Iterator[Problem]:
    device = given_engine(config).get("device")
    if device not in (None, "cuda") or visible(discover()).gpus:
        return
    yield Problem(
        "SGLang needs an NVIDIA GPU, and none is visible here; on a CPU, which SGLang supports in "
        "part, set it to cpu",
        key="sglang.engine.device",
        found=device,
    )
