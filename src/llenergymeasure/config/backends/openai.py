"""Settings of a server that is already running and speaks the OpenAI interface."""

from urllib.parse import urlsplit

from pydantic import Field, field_validator

from llenergymeasure.config.loopback import is_loopback
from llenergymeasure.config.section import Section


class OpenAIConfig(Section):
    """Settings of the openai backend. The server runs on this machine: its energy is metered."""

    base_url: str = Field(
        min_length=1,
        max_length=2048,
        description="Address of the server, on this machine.",
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

    @field_validator("base_url")
    @classmethod
    def _on_this_machine(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host = parts.hostname or ""
        except ValueError as error:
            raise ValueError(f"no valid address: {error}") from None
        if parts.scheme not in ("http", "https"):
            raise ValueError("must start with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no user or password; name a variable in api_key_env")
        if not is_loopback(host):
            raise ValueError(
                "must be on this machine (127.0.0.1, ::1 or localhost): only its energy is metered"
            )
        return value
