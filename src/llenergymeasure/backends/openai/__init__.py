"""Any server that speaks the OpenAI interface: running already, or started by its command."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llenergymeasure.backends.base import Backend, Engine, ServerCommand
from llenergymeasure.backends.common import sampling_options
from llenergymeasure.config.backends.openai import OpenAIConfig, fill
from llenergymeasure.config.decoder import DecoderConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError, Problem
from llenergymeasure.files import sha256
from llenergymeasure.processes import SAFE_PATH_VARIABLE
from llenergymeasure.redact import keep_secret
from llenergymeasure.workload.models.resolve import resolve_model

ENGINE_UNKNOWN = "unknown: a server that was already running; what it says of itself is in settings"
ENGINE_BY_COMMAND = "the server of openai.command; what it says of itself is in settings"


class OpenAIBackend:
    """The backend ``openai``."""

    name: str = "openai"

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; whether the server answers is seen on loading."""
        return [*_address(config), *_program(config), *_key(config), *_server_settings(config)]

    def versions(self) -> dict[str, str]:
        """Return nothing: a server does not say what it is made of."""
        return {}

    def load(self, config: ExperimentConfig) -> Engine:  # noqa: ARG002
        """Refuse: there is only the server."""
        raise BackendError("a server has nothing to load in this process")

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:
        """Return how the running server is asked, or how the command's own is started."""
        settings = _settings(config)
        if settings.command is not None:
            return _command_server(config, settings.command, port)
        assert settings.base_url is not None
        api_key = None if settings.api_key_env is None else _read_variable(settings.api_key_env)
        keep_secret([settings.api_key_env])
        return ServerCommand(
            argv=(),
            base_url=settings.base_url,
            model=settings.model or config.model,
            settings={"engine": ENGINE_UNKNOWN},
            api_key=api_key,
            **_request_settings(config, settings.base_url),
        )


def _command_server(config: ExperimentConfig, command: list[str], port: int) -> ServerCommand:
    settings, location = _settings(config), resolve_model(config).location
    values = {**config.command_values(), "model": location, "port": port}
    argv = tuple(fill(text, values) for text in command)
    base_url = f"http://127.0.0.1:{port}/v1"
    environment = {name: fill(text, values) for name, text in (settings.environment or {}).items()}
    program = shutil.which(argv[0])
    return ServerCommand(
        argv=argv,
        base_url=base_url,
        model=settings.model or location,
        # It is the user's own program, which may import what lies next to it.
        environment={SAFE_PATH_VARIABLE: "", **environment},
        ready_once_answered=True,
        settings={
            "engine": ENGINE_BY_COMMAND,
            "program_sha256": None if program is None else sha256(Path(program)),
        },
        **_request_settings(config, base_url),
    )


def _request_settings(config: ExperimentConfig, base_url: str) -> dict[str, Any]:
    """Return how a server of this interface is asked and read, whoever started it."""
    settings = _settings(config)
    path = urlsplit(base_url).path.rstrip("/")
    return {
        "ready_path": f"{path}/models",
        "body": request_body(config),
        "takes_token_ids": settings.prompts != "text",
        "metrics_path": settings.metrics_path,
        "gauges": {str(name): metric for name, metric in (settings.gauges or {}).items()},
        "settings_path": f"{path}/models",
    }


def request_body(config: ExperimentConfig) -> dict[str, Any]:
    """Return the sampling fields of every request.

    Beyond the interface's own these are the names most servers take; ``openai.body`` wins, and
    its nulls leave fields out, those of the client too.
    """
    body: dict[str, Any] = {"seed": config.random_seed, **_sampling(config.decoder)}
    if config.fewest_tokens is None:
        body["ignore_eos"] = True
    else:
        body["min_tokens"] = config.fewest_tokens
    fields: Mapping[str, Any] = body | (_settings(config).body or {})
    return {name: value for name, value in fields.items() if value is not None or name not in body}


def _sampling(decoder: DecoderConfig) -> dict[str, Any]:
    options = sampling_options(decoder, greedy={"temperature": 0.0})
    neutral = {"top_k": 0, "repetition_penalty": 1.0}  # fields that not every server takes
    return {name: value for name, value in options.items() if neutral.get(name) != value}


def _settings(config: ExperimentConfig) -> OpenAIConfig:
    assert config.openai is not None, "the configuration has been checked"
    return config.openai


def _address(config: ExperimentConfig) -> Iterator[Problem]:
    address = _settings(config).base_url
    if address is not None and urlsplit(address).scheme != "http":
        yield Problem(
            "the client speaks plain http, as on one machine; give an http:// address",
            key="openai.base_url",
            found=address,
        )


def _program(config: ExperimentConfig) -> Iterator[Problem]:
    command = _settings(config).command
    if command is None:
        return
    program = fill(command[0], config.command_values())
    if shutil.which(program) is None:
        yield Problem("there is no such program here", key="openai.command", found=program)


def _key(config: ExperimentConfig) -> Iterator[Problem]:
    name = _settings(config).api_key_env
    if name is not None and not _read_variable(name):
        yield Problem(
            "is not set, or empty, in the environment", key="openai.api_key_env", found=name
        )


def _read_variable(name: str) -> str:
    return os.environ.get(name, "").strip()  # files that keys are read from end with a newline


def _server_settings(config: ExperimentConfig) -> Iterator[Problem]:
    if config.passthrough_kwargs:
        yield Problem(
            "reaches no engine: a server's arguments go into openai.command, and fields of its "
            "requests into openai.body",
            key="passthrough_kwargs",
        )
    if config.lora is not None:
        yield Problem("is the server's to load: start it with the adapter", key="lora")


BACKEND: Backend = OpenAIBackend()
