"""What the engines' modules have in common: versions, and what none of their own engines takes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from llenergymeasure.config.decoder import DecoderConfig
from llenergymeasure.config.engine_parameters.reserved import why_reserved
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import Problem

Capability = tuple[int, int]

_BF16_CAPABILITY = (8, 0)
"""Compute capability from which NVIDIA GPUs have bfloat16 units (CUDA C++ Programming Guide)."""


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed; none is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def bfloat16_problems(config: ExperimentConfig, cards: Iterable[Capability]) -> Iterator[Problem]:
    """Yield that a card of the experiment cannot compute in the precision it asks for.

    Args:
        config: the experiment.
        cards: the compute capability of each of its NVIDIA GPUs that reports it.
    """
    lacking = next((card for card in cards if card < _BF16_CAPABILITY), None)
    if config.precision == "bf16" and lacking is not None:
        major, minor = lacking
        yield Problem(
            f"this GPU (compute capability {major}.{minor}) has no bfloat16; use fp16 or fp32",
            key="precision",
            found="bf16",
        )


def sampling_choice(
    decoder: DecoderConfig, *, greedy: Mapping[str, Any], no_top_k: int = 0
) -> dict[str, Any]:
    """Return how an engine is to choose tokens, by the names that their samplers share.

    Args:
        decoder: the study's settings.
        greedy: what makes the engine take the likeliest token.
        no_top_k: what the engine calls a choice among all tokens.
    """
    penalty = {"repetition_penalty": decoder.repetition_penalty}
    if decoder.greedy:
        return {**greedy, **penalty}
    options: dict[str, Any] = {
        "temperature": decoder.temperature,
        "top_p": decoder.top_p,
        "top_k": decoder.top_k or no_top_k,
        **penalty,
    }
    return options if decoder.min_p is None else options | {"min_p": decoder.min_p}


def adapter_problems(config: ExperimentConfig) -> Iterator[Problem]:
    """Yield that an engine puts no adapter on its model, if one is asked for."""
    if config.lora is not None:
        yield Problem(
            "adapters are put on a model by the backend pytorch alone; merge it into the model's "
            "folder first",
            key="lora",
        )


def passthrough_problems(config: ExperimentConfig, ours: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what may not be passed through to an engine's arguments.

    Args:
        config: the experiment.
        ours: arguments that have a name of their own in a study, and which.
    """
    for name in config.passthrough_kwargs or {}:
        reason = why_reserved(f"{config.backend}.engine", name)
        if name in ours:
            reason = f"has a name of its own in a study; set {ours[name]}"
        if reason is not None:
            yield Problem(reason, key=f"passthrough_kwargs.{name}")
