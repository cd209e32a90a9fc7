"""Why a configuration cannot run here, found without importing SGLang."""

from collections.abc import Iterator
from importlib.util import find_spec

from llenergymeasure.backends.sglang.arguments import given_engine
from llenergymeasure.config.catalogue.reserved import why_reserved
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem
from llenergymeasure.hardware.gpus import discover, visible

_OURS = {
    "dtype": "precision",
    "random_seed": "random_seed",
}


def find_problems(config: ExperimentConfig) -> list[Problem]:
    """Return all reasons at once; none if it can run."""
    return [*_package(), *_device(config), *_adapter(config), *_passthrough(config)]


def _package() -> Iterator[Problem]:
    if find_spec("sglang") is None:
        yield Problem(
            "sglang not installed: pip install -r envs/sglang.txt, in an environment of its own, "
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


def _adapter(config: ExperimentConfig) -> Iterator[Problem]:
    if config.lora is not None:
        yield Problem(
            "adapters are put on a model by the backend pytorch alone; merge it into the model's "
            "folder first",
            key="lora",
        )


def _passthrough(config: ExperimentConfig) -> Iterator[Problem]:
    for name in config.passthrough_kwargs or {}:
        reason = why_reserved("sglang.engine", name)
        if name in _OURS:
            reason = f"has a name of its own in a study; set {_OURS[name]}"
        if reason is not None:
            yield Problem(reason, key=f"passthrough_kwargs.{name}")
