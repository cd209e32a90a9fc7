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
from typing import Any, TypeVar

from llenergymeasure.config.decoder import DecoderConfig
from llenergymeasure.config.engine_parameters import parameters
from llenergymeasure.config.engine_parameters.reserved import CREDENTIALS, why_reserved
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, Problem
from llenergymeasure.screen import replace_surrogates

Capability = tuple[int, int]
T = TypeVar("T")

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""What torch, and so every engine, calls a study's precision."""

SERVED_NAME = "llem"
"""What servers that a run starts call its model."""

EMPTY_CACHE_LIMIT_S = 10.0
_POLL_S = 0.02

_BF16_CAPABILITY = (8, 0)
"""Compute capability from which NVIDIA GPUs have bfloat16 units (CUDA C++ Programming Guide)."""

_UNRECORDED = frozenset({"hf_config", "hf_text_config", "static_forward_context", "instance_id"})
"""Of vLLM: the model's own configuration, which is in the record by itself; the loaded layers, and
a name drawn at random."""

_MAX_DEPTH = 8
"""Levels of an engine's own objects, which may lead back to themselves."""


@contextmanager
def failing_as(message: str, *, out_of_memory: str | None = None) -> Iterator[None]:
    """Report whatever an engine raises as a failure of ``message``, or in words for lack of memory.

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
        raise BackendError(f"{message}: {type(error).__name__}: {error}") from error


def require_open(engine: T | None) -> T:
    """Return an engine's own object.

    Raises:
        BackendError: it is None: the engine has been closed.
    """
    if engine is None:
        raise BackendError("the engine is closed")
    return engine


def empty_prefix_cache(engine: str, flush: Callable[[], str | None]) -> None:
    """Have a prefix cache emptied before a pass; ``flush`` returns why it was not, and is repeated.

    A tier that blocks are offloaded to holds those of the pass before until they are written.

    Raises:
        BackendError: it is kept for longer than that takes.
    """
    deadline_s = time.monotonic() + EMPTY_CACHE_LIMIT_S
    while (reason := flush()) is not None:
        if time.monotonic() > deadline_s:
            raise BackendError(f"{engine} kept its prefix cache over a pass: {reason}")
        time.sleep(_POLL_S)


def study_arguments(config: ExperimentConfig) -> dict[str, Any]:
    """Return the engine arguments that the study sets, ``passthrough_kwargs`` among them."""
    section = getattr(getattr(config, config.backend), "engine", None)
    return ({} if section is None else section.arguments()) | (config.passthrough_kwargs or {})


def study_sampling(config: ExperimentConfig) -> dict[str, Any]:
    """Return the sampling parameters that the study sets by the engine's own names."""
    section = getattr(getattr(config, config.backend), "sampling", None)
    return {} if section is None else section.explicit_values()


def sampling_options(
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


def length_options(
    config: ExperimentConfig,
    max_output_tokens: int,
    max_key: str = "max_tokens",
    min_key: str = "min_tokens",
) -> dict[str, Any]:
    """Return how long an answer is to be, by an engine's names of the most and fewest tokens.

    The end of sequence is ignored where the study asks for answers of a fixed length, so that
    every run of a comparison writes exactly the tokens asked for.
    """
    min_tokens = config.fewest_tokens
    if min_tokens is None:
        return {max_key: max_output_tokens, "ignore_eos": True}
    return {max_key: max_output_tokens, min_key: min(min_tokens, max_output_tokens)}


def request_fields(
    sampling: Mapping[str, Any], backend: str, server: str, excluded: Collection[str] = ()
) -> dict[str, Any]:
    """Return sampling parameters as fields of a request to the engine's server.

    Those that ``excluded`` has are left out: each request has its own, or the server does.

    Raises:
        BackendError: one is no field of its requests, and servers pass over what they do not know.
    """
    specs = parameters(f"{backend}.sampling")
    fields = {}
    for name, value in sampling.items():
        if name in excluded:
            continue
        field = specs.get(name, {}).get("x-request")
        if field is None:
            raise BackendError(
                f"{server} takes no sampling.{name}: remove it, or the section serving"
            )
        fields[field] = value
    return fields


def command_line(arguments: Mapping[str, Any], specs: Mapping[str, Any]) -> Iterator[str]:
    """Yield arguments as an engine's command line takes them; those that are None are left out.

    Args:
        arguments: by the engine's names.
        specs: its parameters. Of other spellings of a name the command line certainly knows the
            first; a switch that is off by default is turned off by leaving it out.
    """
    for name, value in arguments.items():
        parameter = specs.get(name, {})
        spelling = next(iter(parameter.get("x-aliases", ())), name).replace("_", "-")
        if value is None or (value is False and parameter.get("default") is False):
            continue
        if isinstance(value, bool):
            yield f"--{spelling}" if value else f"--no-{spelling}"
        elif isinstance(value, list) and parameter.get("x-command-line") != "json":
            yield from (f"--{spelling}", *(str(item) for item in value))
        else:
            text = json.dumps(value) if isinstance(value, dict | list) else str(value)
            yield from (f"--{spelling}", text)


def bfloat16_problems(config: ExperimentConfig, gpus: Iterable[Capability]) -> Iterator[Problem]:
    """Yield that a card of the experiment cannot compute in the precision it asks for.

    Args:
        config: the experiment.
        gpus: the compute capability of each of its NVIDIA GPUs that reports it.
    """
    unsupported = next((gpu for gpu in gpus if gpu < _BF16_CAPABILITY), None)
    if config.precision == "bf16" and unsupported is not None:
        major, minor = unsupported
        yield Problem(
            f"this GPU (compute capability {major}.{minor}) has no bfloat16; use fp16 or fp32",
            key="precision",
            found="bf16",
        )


def has_compiler() -> bool:
    """Whether there is the C++ compiler that torch's Inductor takes for the CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def passthrough_problems(config: ExperimentConfig, keys: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what may not be passed through to an engine's arguments.

    Args:
        config: the experiment.
        keys: arguments that have a name of their own in a study, and which.
    """
    section = config.backend if config.backend == "pytorch" else f"{config.backend}.engine"
    for name in config.passthrough_kwargs or {}:
        reason = why_reserved(section, name)
        if name in keys:
            reason = f"has a name of its own in a study; set {keys[name]}"
        if reason is not None:
            yield Problem(reason, key=f"passthrough_kwargs.{name}")


def jsonable(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return a value as JSON could hold it: dataclasses and structs by field, the rest by name.

    Credentials and what is not a setting are left out.
    """
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < 0:
        nested = isinstance(value, list | dict)
        return "nested deeper than is recorded" if nested else str(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if dataclasses.is_dataclass(value):
        values = {item.name: getattr(value, item.name, None) for item in dataclasses.fields(value)}
        return jsonable(values, depth)
    if hasattr(value, "__struct_fields__"):
        return jsonable({name: getattr(value, name) for name in value.__struct_fields__}, depth)
    if isinstance(value, Mapping):
        return {
            replace_surrogates(str(name)): jsonable(item, depth - 1)
            for name, item in value.items()
            if name not in _UNRECORDED and name not in CREDENTIALS and not str(name).startswith("_")
        }
    if isinstance(value, set | frozenset):
        return sorted(str(jsonable(item, depth - 1)) for item in value)
    if isinstance(value, list | tuple):
        return [jsonable(item, depth - 1) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return str(value).removeprefix("torch.")
