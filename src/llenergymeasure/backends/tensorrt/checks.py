"""Why a configuration cannot run here, found without importing TensorRT-LLM."""

from collections.abc import Iterator
from pathlib import Path

from llenergymeasure.backends.tensorrt.arguments import settings
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.inventory import discover, visible


def find_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that there is no GPU, or no engine where the study has one."""
    if not visible(discover()).gpus:
        yield Problem("needs an NVIDIA GPU, and none is visible here", key="backend")
    path = settings(config).engine_path
    if path is not None and not (Path(path).expanduser() / "config.json").is_file():
        yield Problem(
            "no folder with an engine's config.json", key="tensorrt.engine_path", found=path
        )
