"""Settings of a server that is already running and speaks the OpenAI interface."""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from llenergymeasure.config.loopback import is_loopback
from llenergymeasure.config.section import Section


class OpenAIConfig(Section):
    """Settings of the openai backend. The server runs on this machine: its energy is metered."""

    allow_remote: bool | None = Field(
        default=None,
        description="Take a server on another machine too. The energy recorded stays this "
        "machine's, which then is the client's alone.",
    )
    base_url: str = Field(
        min_length=1,
        max_length=2048,
        description="Address of the server, on this machine unless allow_remote is set.",
        examples=["http://127.0.0.1:8000/v1"],
    )
    model: str | None = Field(
        default=None, min_length=1, description="Name the server knows the model by."
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
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
        description="Where the server tells its state as Prometheus text, from its root.",
        examples=["/metrics"],
    )
    gauges: dict[Literal["running", "waiting", "kv_cache_share"], str] | None = Field(
        default=None,
        description="Names of the server's metrics for requests at work and in its queue, and "
        "for the share of the key-value cache in use (0 to 1).",
        examples=[{"running": "llamacpp:requests_processing"}],
    )

    @field_validator("base_url")
    @classmethod
    def _on_this_machine(cls, value: str, info: ValidationInfo) -> str:
        try:
            parts = urlsplit(value)
            host = parts.hostname or ""
        except ValueError as error:
            raise ValueError(f"no valid address: {error}") from None
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise ValueError("no valid address: it has blanks or signs that no address has")
        if parts.scheme not in ("http", "https"):
            raise ValueError("must start with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user or password; name a variable in api_key_env")
        if not is_loopback(host) and not info.data.get("allow_remote"):
            raise ValueError(
                "must be on this machine (127.0.0.1, ::1 or localhost): only its energy is "
                "metered; allow_remote: true takes any other"
            )
        return value
