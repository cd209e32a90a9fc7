"""Any server that is already running and speaks the OpenAI interface; whose engine is not known."""

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from llenergymeasure.backends.base import Backend, Engine, ServerCommand
from llenergymeasure.backends.openai.owner import server_root
from llenergymeasure.config.backends.openai import OpenAIConfig
from llenergymeasure.config.experiment import DecoderConfig, ExperimentConfig
from llenergymeasure.errors import BackendError, Problem
from llenergymeasure.redact import keep_secret

ENGINE_UNKNOWN = "unknown: a server that was already running; what it says of itself is in settings"


class OpenAIBackend:
    """The backend ``openai``."""

    name: str = "openai"

    def problems(self, config: ExperimentConfig) -> list[Problem]:
        """Return why ``config`` cannot run here; whether the server answers is seen on loading."""
        return [*_address(config), *_key(config), *_not_ours(config)]

    def versions(self) -> dict[str, str]:
        """Return nothing: a server does not tell what it is made of."""
        return {}

    def load(self, config: ExperimentConfig) -> Engine:  # noqa: ARG002
        """Refuse: there is only the server.

        Raises:
            BackendError: always.
        """
        raise BackendError("a server that is already running has nothing to load in this process")

    def server(self, config: ExperimentConfig, port: int) -> ServerCommand:  # noqa: ARG002
        """Return how the running server is asked; nothing is started."""
        settings = _settings(config)
        path = urlsplit(settings.base_url).path.rstrip("/")
        key = None if settings.api_key_env is None else os.environ.get(settings.api_key_env)
        keep_secret([settings.api_key_env])
        return ServerCommand(
            argv=(),
            base_url=settings.base_url,
            model=settings.model or config.model,
            ready_path=f"{path}/models",
            body=request_body(config),
            takes_token_ids=settings.prompts != "text",
            metrics_path=settings.metrics_path,
            gauges={str(name): metric for name, metric in (settings.gauges or {}).items()},
            settings_path=f"{path}/models",
            settings={"engine": ENGINE_UNKNOWN},
            api_key=key,
        )

    def process(self, config: ExperimentConfig) -> int | None:
        """Return the process at the root of the server's; null where it is not to be seen."""
        return server_root(_settings(config).base_url)


def request_body(config: ExperimentConfig) -> dict[str, Any]:
    """Return the sampling fields of every request.

    Beyond the interface's own these are the names most servers take; ``openai.body`` wins, and
    its nulls leave fields out.
    """
    body: dict[str, Any] = {"seed": config.random_seed, **_choice(config.decoder)}
    if config.fewest_tokens is None:
        body["ignore_eos"] = True
    else:
        body["min_tokens"] = config.fewest_tokens
    merged: Mapping[str, Any] = body | (_settings(config).body or {})
    return {name: value for name, value in merged.items() if value is not None}


def _choice(decoder: DecoderConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"temperature": 0.0}
    if not decoder.greedy:
        options = {"temperature": decoder.temperature, "top_p": decoder.top_p}
        if decoder.top_k:
            options["top_k"] = decoder.top_k
        if decoder.min_p is not None:
            options["min_p"] = decoder.min_p
    if decoder.repetition_penalty != 1.0:
        options["repetition_penalty"] = decoder.repetition_penalty
    return options


def _settings(config: ExperimentConfig) -> OpenAIConfig:
    assert config.openai is not None, "the configuration has been checked"
    return config.openai


def _address(config: ExperimentConfig) -> Iterator[Problem]:
    address = _settings(config).base_url
    if urlsplit(address).scheme != "http":
        yield Problem(
            "the client speaks plain http, as on one machine; give an http:// address",
            key="openai.base_url",
            found=address,
        )


def _key(config: ExperimentConfig) -> Iterator[Problem]:
    name = _settings(config).api_key_env
    if name is not None and not os.environ.get(name):
        yield Problem(
            "is not set, or empty, in the environment", key="openai.api_key_env", found=name
        )


def _not_ours(config: ExperimentConfig) -> Iterator[Problem]:
    if config.passthrough_kwargs:
        yield Problem(
            "reaches no engine: the server runs already; fields of its requests go into "
            "openai.body",
            key="passthrough_kwargs",
        )
    if config.lora is not None:
        yield Problem("cannot be put on a server that runs already; start it so", key="lora")


BACKEND: Backend = OpenAIBackend()
