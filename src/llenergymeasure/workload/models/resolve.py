"""From a model's name in a study file to something an engine can load."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.config.conflicting_settings import Shape
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, ConfigurationError, Problem
from llenergymeasure.files import lfs_pointer_problem, load_json
from llenergymeasure.ids import digest
from llenergymeasure.workload.cache import cache_folder, make_once
from llenergymeasure.workload.models.architecture import Architecture
from llenergymeasure.workload.models.hub import cached_file, fetch_config
from llenergymeasure.workload.models.known import (
    KNOWN,
    TINY_LLAMA,
    closest_known,
    known_architecture,
)
from llenergymeasure.workload.models.tiny import tiny_llama_folder, write_json

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""What an id on the Hugging Face hub looks like: a name, or owner and name."""

_IDS_WITHOUT_OWNER = {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}
"""Ids from the hub's first days, which still mean a model there."""

_POSITIONS_AS_STATED = ("default", "llama3", "yarn", "longrope", "su")
"""Kinds of rotary scaling that leave ``max_position_embeddings`` as the longest sequence."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        name: as written in the study.
        location: what an engine's loader takes: a folder, or an id on the hub.
        random: whether only the architecture is there, to be filled with random weights.
        config: the content of its ``config.json``.
        architecture: its dimensions; None for a family whose shape is not known here.
        revision: on the hub, if asked for.
    """

    name: str
    location: str
    random: bool
    config: Mapping[str, Any]
    architecture: Architecture | None
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """Return the local folder; None for a model on the hub."""
        path = Path(self.location)
        return path if path.is_dir() else None

    @property
    def commit(self) -> str | None:
        """Return the hub's commit that its files here are of; None for a local folder's."""
        path = None if self.folder else cached_file(self.name, "config.json", self.revision)
        return None if path is None else path.parent.name


def resolve_model(config: ExperimentConfig) -> ModelSource:
    """Return where the model of an experiment comes from.

    Made locally if built in; else a local folder, if there is one of that name; else the hub, of
    which only ``config.json`` is fetched here.

    Raises:
        ConfigurationError: the name means nothing, or the folder holds no model.
        BackendError: the model cannot be fetched from the hub: offline, missing, or gated.
    """
    name = config.model
    revision = requested_revision(config)
    if config.weights == "random":
        return _random(name, revision)
    if name == TINY_LLAMA:
        return _in_folder(name, tiny_llama_folder(), random=False)
    if looks_like_folder(name):
        return _in_folder(name, Path(name), random=False)
    if is_hub_id(name):
        return _read(name, name, fetch_config(name, revision), random=False, revision=revision)
    architecture = None if "/" in name else known_architecture(name)
    if architecture is not None:
        raise _problem(
            f"only the architecture of {architecture.name} is built in; set weights: random, or "
            "give the model's full id on the hub (owner/name) or a local folder",
            architecture.name,
        )
    raise _problem(
        f"neither a local folder, nor an id on the hub (owner/name), nor {TINY_LLAMA}", name
    )


def measured_commit(config: ExperimentConfig, source: ModelSource | None) -> str | None:
    """Return the hub's commit of the model that was measured.

    None for a local folder, and for a server of somebody else: it may have another one loaded.
    """
    return None if source is None or config.external_server else source.commit


def requested_revision(config: ExperimentConfig) -> str | None:
    """Return the revision on the hub that the study asks the engine for; None for the newest."""
    section: Any = getattr(config, config.backend)
    arguments = section if config.backend == "pytorch" else getattr(section, "engine", None)
    revision = None if arguments is None else arguments.explicit_values().get("revision")
    return None if revision is None else str(revision)


def looks_like_folder(name: str) -> bool:
    """Whether a model's name is meant as a path: it exists, or is written like one."""
    return Path(name).is_dir() or name.startswith((".", "/", "~")) or name.endswith(os.sep)


def is_hub_id(name: str) -> bool:
    """Whether a model's name can only be one of the hub's."""
    if name == TINY_LLAMA or looks_like_folder(name):
        return False
    built_in = "/" not in name and known_architecture(name) is not None
    return HUB_ID.fullmatch(name) is not None and (not built_in or name in _IDS_WITHOUT_OWNER)


def architecture_in_folder(name: str) -> Architecture | None:
    """Return the architecture of a model in a local folder; None for a family not known here.

    Raises:
        ConfigurationError: the folder is missing, or holds no model.
        BackendError: its ``config.json`` cannot be read.
    """
    return _in_folder(name, Path(name), random=False).architecture


def _random(name: str, revision: str | None) -> ModelSource:
    if looks_like_folder(name):
        return _in_folder(name, Path(name), random=True)
    architecture = known_architecture(name)
    if architecture is not None:
        folder = architecture_folder(architecture)
        return ModelSource(name, str(folder), True, architecture.config, architecture)
    path = cached_file(name, "config.json", revision) if HUB_ID.fullmatch(name) else None
    if path is None:
        raise _unknown_name(name)
    return _read(name, name, path, random=True, revision=revision)


def architecture_folder(architecture: Architecture) -> Path:
    """Return a folder in the cache with the architecture's ``config.json`` alone.

    Engines that fill in random weights by themselves (``load_format: dummy``) load from it.
    """
    name = f"{architecture.name}-{digest(architecture.config)[:12]}"

    def make(folder: Path) -> None:
        write_json(folder / "config.json", architecture.config)

    return make_once(cache_folder() / "architectures" / name, make)


def to_shape(architecture: Architecture) -> Shape:
    """Return what the rules need to know of an architecture."""
    scaling = (architecture.rope_scaling or {}).get("rope_type", "default")
    return Shape(
        heads=architecture.heads,
        kv_heads=architecture.kv_heads,
        layers=architecture.layers,
        max_positions=architecture.max_positions if scaling in _POSITIONS_AS_STATED else None,
        experts=architecture.experts,
    )


def _in_folder(name: str, folder: Path, *, random: bool) -> ModelSource:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise _problem("there is no such folder", str(folder))
    path = folder / "config.json"
    if not path.is_file():
        raise _problem("this folder holds no config.json, so it is no model", str(folder))
    return _read(name, str(folder.resolve()), path, random=random)


def _read(
    name: str, location: str, path: Path, *, random: bool, revision: str | None = None
) -> ModelSource:
    """Return a model whose ``config.json`` lies at ``path``."""
    content = model_json(path)
    if not isinstance(content, dict):
        raise BackendError(f"{path} should hold a mapping, not {type(content).__name__}")
    try:
        architecture = Architecture.from_config(content, name)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise BackendError(f"{path} lacks a dimension of its architecture: {error}") from error
    return ModelSource(name, location, random, content, architecture, revision)


def model_json(path: Path) -> Any:
    """Return what one of a model's JSON files holds.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        return load_json(path)
    except (OSError, ValueError) as error:
        reason = lfs_pointer_problem(path) or f"cannot be read as JSON: {error}"
        raise BackendError(f"{path} {reason}") from error


def _problem(message: str, found: str) -> ConfigurationError:
    return ConfigurationError(Problem(message, key="model", found=found))


def _unknown_name(name: str) -> ConfigurationError:
    closest = closest_known(name)
    hint = f" Did you mean {closest}?" if closest else ""
    return _problem(
        f"weights: random knows no architecture of this name.{hint} Known: {', '.join(KNOWN)}; "
        "or a local folder with a config.json, or a model in the local cache of the hub",
        name,
    )
