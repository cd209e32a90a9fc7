"""What the engines' modules have in common: what one is given, what it says, how it fails."""

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any

from llenergymeasure.config.decoder import DecoderConfig
from llenergymeasure.config.engine_parameters import parameters
from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS, why_reserved
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, Problem
from llenergymeasure.screen import clean

Capability = tuple[int, int]

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What torch, and so every engine, calls a study's precision."""

SERVED_NAME = "llem"
"""What servers that a run starts call its model."""

EMPTY_LIMIT_S = 10.0
_LOOK_S = 0.02

_BF16_CAPABILITY = (8, 0)
"""Compute capability from which NVIDIA GPUs have bfloat16 units (CUDA C++ Programming Guide)."""

_LEFT_OUT = frozenset({"hf_config", "hf_text_config", "static_forward_context", "instance_id"})
"""Of vLLM: the model's own configuration, which is in the record by itself; the loaded layers, and
a name drawn at random."""

_DEEPEST = 8
"""Levels of an engine's own objects, which may lead back to themselves."""


@contextmanager
def failing_as(what: str, *, out_of_memory: str | None = None) -> Iterator[None]:
    """Report whatever an engine raises as a failure of ``what``, or in words for lack of memory.

    Engines, torch, transformers, a model's own code and the drivers each raise their own kinds.

    Raises:
        BackendError: it failed.
    """
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        if out_of_memory is not None and type(error).__name__ == "OutOfMemoryError":  # torch's
            raise BackendError(out_of_memory) from error
        raise BackendError(f"{what}: {type(error).__name__}: {error}") from error


def empty_prefix_cache(engine: str, ask: Callable[[], str | None]) -> None:
    """Have a prefix cache emptied before a pass; ``ask`` returns why it was not, and is repeated.

    A tier that blocks are offloaded to holds those of the pass before until they are written.

    Raises:
        BackendError: it is kept for longer than that takes.
    """
    deadline_s = time.monotonic() + EMPTY_LIMIT_S
    while (reason := ask()) is not None:
        if time.monotonic() > deadline_s:
            raise BackendError(f"{engine} kept its prefix cache over a pass: {reason}")
        time.sleep(_LOOK_S)


def given_engine(config: ExperimentConfig) -> dict[str, Any]:
    """Return the engine arguments that the study sets, ``passthrough_kwargs`` among them."""
    section = getattr(getattr(config, config.backend), "engine", None)
    return ({} if section is None else section.arguments()) | (config.passthrough_kwargs or {})


def given_sampling(config: ExperimentConfig) -> dict[str, Any]:
    """Return the sampling parameters that the study sets by the engine's own names."""
    section = getattr(getattr(config, config.backend), "sampling", None)
    return {} if section is None else section.given()


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


def answer_length(
    config: ExperimentConfig,
    max_output_tokens: int,
    *,
    most: str = "max_tokens",
    least: str = "min_tokens",
) -> dict[str, Any]:
    """Return how long an answer is to be, by an engine's names of the most and fewest tokens.

    The end of sequence is ignored where the study asks for answers of a fixed length, so that
    every run of a comparison writes exactly the tokens asked for.
    """
    fewest = config.fewest_tokens
    end = {"ignore_eos": True} if fewest is None else {least: min(fewest, max_output_tokens)}
    return {most: max_output_tokens, **end}


def request_fields(
    asked: Mapping[str, Any], backend: str, server: str, besides: Collection[str] = ()
) -> dict[str, Any]:
    """Return sampling parameters as fields of a request to the engine's server.

    Those that ``besides`` has are left out: each request has its own, or the server does.

    Raises:
        BackendError: one is no field of its requests, and servers pass over what they do not know.
    """
    known = parameters(f"{backend}.sampling")
    fields = {}
    for name, value in asked.items():
        if name in besides:
            continue
        field = known.get(name, {}).get("x-request")
        if field is None:
            raise BackendError(
                f"{server} takes no sampling.{name}: remove it, or the section serving"
            )
        fields[field] = value
    return fields


def command_line(arguments: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Yield arguments as an engine's command line takes them; those that are None are left out.

    Args:
        arguments: by the engine's names.
        known: its parameters. Of other spellings of a name the command line certainly knows the
            first; a switch that is off by default is turned off by leaving it out.
    """
    for name, value in arguments.items():
        parameter = known.get(name, {})
        spelling = next(iter(parameter.get("x-aliases", ())), name).replace("_", "-")
        if value is None or (value is False and parameter.get("default") is False):
            continue
        if isinstance(value, bool):
            yield f"--{spelling}" if value else f"--no-{spelling}"
        elif isinstance(value, list) and parameter.get("x-command-line") != "json":
            yield from (f"--{spelling}", *(str(each) for each in value))
        else:
            text = json.dumps(value) if isinstance(value, dict | list) else str(value)
            yield from (f"--{spelling}", text)


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


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch's Inductor takes for the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def passthrough_problems(config: ExperimentConfig, ours: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what may not be passed through to an engine's arguments.

    Args:
        config: the experiment.
        ours: arguments that have a name of their own in a study, and which.
    """
    section = config.backend if config.backend == "pytorch" else f"{config.backend}.engine"
    for name in config.passthrough_kwargs or {}:
        reason = why_reserved(section, name)
        if name in ours:
            reason = f"has a name of its own in a study; set {ours[name]}"
        if reason is not None:
            yield Problem(reason, key=f"passthrough_kwargs.{name}")


def plain(value: Any, deepest: int = _DEEPEST) -> Any:
    """Return a value as JSON could hold it: dataclasses and structs by field, the rest by name.

    Credentials and what is not a setting are left out.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if deepest < 0:
        nested = isinstance(value, list | dict)
        return "nested deeper than is recorded" if nested else str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if dataclasses.is_dataclass(value):
        held = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
        return plain(held, deepest)
    if hasattr(value, "__struct_fields__"):
        return plain({name: getattr(value, name) for name in value.__struct_fields__}, deepest)
    if isinstance(value, Mapping):
        return {
            clean(str(name)): plain(each, deepest - 1)
            for name, each in value.items()
            if name not in _LEFT_OUT and name not in CREDENTIALS and not str(name).startswith("_")
        }
    if isinstance(value, set | frozenset):
        return sorted(str(plain(each, deepest - 1)) for each in value)
    if isinstance(value, list | tuple):
        return [plain(each, deepest - 1) for each in value]
    if isinstance(value, PurePath):
        return str(value)
    return str(value).removeprefix("torch.")
