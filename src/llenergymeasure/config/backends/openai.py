"""Settings of any server that speaks the OpenAI interface, running already or to be started."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.section import Fault, Section, Text, Variable, rejection
from llenergymeasure.config.servers import is_loopback

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.]*)\}")
RUN_PLACEHOLDERS = ("model", "port", "api_key")
"""Placeholders that each run fills in by itself."""

_REQUEST_FIELDS = ("prompt", "messages")
_COMMAND_FIELDS = ("environment", "values")
_BASE_URL_FIELDS = ("allow_remote", "api_key_env")


class OpenAIConfig(Section):
    """Settings of the openai backend. The server runs on this machine: its energy is metered."""

    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments of the server, which each run then starts and ends. "
        "{port} is where on 127.0.0.1 it is to listen, {model} the model's folder or id, {api_key} "
        "the run's own key; {NAME} is one of values, or any setting by its dotted name.",
        examples=[["llama-server", "--model", "{model}/model.gguf", "--port", "{port}"]],
    )
    environment: dict[str, str] | None = Field(
        default=None,
        description="Variables of the command, with the same placeholders.",
        examples=[{"LLAMA_API_KEY": "{api_key}"}],
    )
    values: dict[str, str | int | float | bool] | None = Field(
        default=None,
        description="What the command's own placeholders stand for; each can be swept.",
        examples=[{"threads": 4}],
    )
    allow_remote: bool | None = Field(
        default=None,
        description="Take a server on another machine too. The energy recorded stays this "
        "machine's, which then is the client's alone.",
    )
    base_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Address of a server that is running already, on this machine unless "
        "allow_remote is set.",
        examples=["http://127.0.0.1:8000/v1"],
    )
    model: Text | None = Field(
        default=None,
        description="Name the server knows the model by; default: what {model} stands for with "
        "command, else the study's model.",
    )
    api_key_env: Variable | None = Field(
        default=None,
        description="Environment variable that holds the key; the key itself is never written.",
        examples=["OPENAI_API_KEY"],
    )

    prompts: Literal["token_ids", "text"] | None = Field(
        default=None,
        description="How prompts are sent. token_ids, the default, are the same for every "
        "engine; text is for servers that take nothing else, and needs the model's tokenizer.",
    )
    body: dict[str, Any] | None = Field(
        default=None,
        description="Fields of every request as this server names them, over those sent anyway; "
        "null leaves one out.",
        examples=[{"ignore_eos": None, "min_tokens": 128}],
    )
    metrics_path: str | None = Field(
        default=None,
        pattern=r"^/[!-~]*$",
        max_length=2048,
        description="Where the server reports its state as Prometheus text, from its root.",
        examples=["/metrics"],
    )
    gauges: dict[Literal["running", "waiting", "kv_cache_share", "requests"], str] | None = Field(
        default=None,
        description="Names of the server's metrics for requests in progress and in its queue, for "
        "the share of the key-value cache in use (0 to 1), and for the requests answered so far.",
        examples=[{"running": "llamacpp:requests_processing"}],
    )

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"no valid address: {error}") from None
        if port == 0:
            raise ValueError("no valid address: port 0")
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ValueError("no valid address: it has blanks or signs that no address has")
        if parts.scheme not in ("http", "https"):
            raise ValueError("must start with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user or password; name a variable in api_key_env")
        if "?" in value or "#" in value:
            raise ValueError(
                "must end with its path: what follows ? or # is not sent; give a key by the "
                "environment (api_key_env)"
            )
        return value

    def _contradictions(self) -> Iterator[str]:
        is_local = self.base_url is None or is_loopback(urlsplit(self.base_url).hostname or "")
        if not is_local and not self.allow_remote:
            message = (
                "must be on this machine (127.0.0.1, ::1 or localhost): only its energy is "
                "metered; allow_remote: true takes any other"
            )
            raise rejection([Fault(("base_url",), message, self.base_url, standalone=False)])
        for name in _REQUEST_FIELDS:
            if name in (self.body or {}):
                yield f"body.{name} is the run's own in each request; remove it"
        if (self.command is None) == (self.base_url is None):
            yield (
                "give base_url, the address of a server that is running, or command, which starts "
                "one, and not both"
            )
        if self.command is None:
            misplaced = [name for name in _COMMAND_FIELDS if getattr(self, name) is not None]
            if misplaced:
                yield f"{misplaced[0]} belongs to command; remove it"
            return
        misplaced = [name for name in _BASE_URL_FIELDS if getattr(self, name) is not None]
        if misplaced:
            yield f"{misplaced[0]} belongs to base_url; a server that is started has {{api_key}}"
        placeholders = set(self.placeholders())
        if "port" not in placeholders:
            yield "command has no {port}: the run chooses where the server listens"
        reserved = [name for name in RUN_PLACEHOLDERS if name in (self.values or ())]
        if reserved:
            name = reserved[0]
            yield f"values.{name}: each run fills in {{{name}}} by itself; name it otherwise"
        unused = sorted(set(self.values or ()) - placeholders)
        if unused:
            yield f"values.{unused[0]} is nowhere in command: write {{{unused[0]}}} where it goes"

    def placeholders(self) -> Iterator[str]:
        """Yield the names that command and environment have in braces."""
        for text in (*(self.command or ()), *(self.environment or {}).values()):
            yield from _PLACEHOLDER.findall(text)


def fill(text: str, values: Mapping[str, Any]) -> str:
    """Return a text of a command with its placeholders filled in, as far as ``values`` has them.

    Texts stand as they are, all else as JSON writes it. A dotted name leads into ``values``.
    """

    def replacement(match: re.Match[str]) -> str:
        value = value_at(values, match[1])
        if value is None:
            return match[0]
        return value if isinstance(value, str) else json.dumps(value)

    return _PLACEHOLDER.sub(replacement, text)
