"""Why a configuration cannot run here, found without importing TensorRT-LLM."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from llenergymeasure.backends.common import adapter_problems, passthrough_problems
from llenergymeasure.backends.tensorrt.arguments import settings
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.machine.gpus.inventory import discover, visible

_OURS = {
    "dtype": "precision",
    "backend": "tensorrt.engine.backend",
    "skip_tokenizer_init": "nothing: prompts and answers are token ids",
}


def find_problems(config: ExperimentConfig) -> list[Problem]:
    """Return all reasons at once; none if it can run."""
    return [
        *_package(),
        *_gpu(),
        *_engine(config),
        *adapter_problems(config),
        *passthrough_problems(config, _OURS),
    ]


def _package() -> Iterator[Problem]:
    if find_spec("tensorrt_llm") is None:
        yield Problem(
            "tensorrt_llm not installed: it comes as a container image; use runner: docker or "
            "apptainer",
            key="backend",
            found="tensorrt",
        )


def _gpu() -> Iterator[Problem]:
    if not visible(discover()).gpus:
        yield Problem("needs an NVIDIA GPU, and none is visible here", key="backend")


def _engine(config: ExperimentConfig) -> Iterator[Problem]:
    path = settings(config).engine_path
    if path is not None and not (Path(path).expanduser() / "config.json").is_file():
        yield Problem(
            "no folder with an engine's config.json", key="tensorrt.engine_path", found=path
        )
