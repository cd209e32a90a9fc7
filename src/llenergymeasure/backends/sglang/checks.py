"""Why a configuration cannot run here, found without importing SGLang."""

from collections.abc import Iterator

from llenergymeasure.backends.common import given_engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.inventory import discover, visible


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
