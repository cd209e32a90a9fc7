"""Whom to notify that a study has ended: a webhook, a command, or both."""

from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from llenergymeasure.config.section import Section, Variable
from llenergymeasure.config.servers import is_loopback

Event = Literal["finish", "failure", "circuit_break"]


class NotifyConfig(Section):
    """Whom to notify that the study has ended. None of it is part of an experiment's id."""

    webhook: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Address that a JSON is sent to by POST: https, or http on this machine.",
        examples=["https://hooks.example.org/llem"],
    )
    webhook_env: Variable | None = Field(
        default=None,
        description="Environment variable that holds the address, where knowing it is the right "
        "to use it.",
        examples=["LLEM_WEBHOOK"],
    )
    token_env: Variable | None = Field(
        default=None,
        description="Environment variable with a token, sent as Authorization: Bearer.",
        examples=["LLEM_WEBHOOK_TOKEN"],
    )
    command: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments to run, with the same JSON on its standard input.",
        examples=[["sh", "-c", "mail -s 'study ended' me"]],
    )
    on: list[Event] | None = Field(
        default=None,
        min_length=1,
        description="finish: every run is complete; failure: the study ended and some are not; "
        "circuit_break: it was ended because every run failed alike. Default all three.",
    )
    timeout_seconds: float = Field(
        default=10.0, gt=0, le=300, description="How long to wait for the webhook or the command."
    )

    def wants(self, event: Event) -> bool:
        """Return whether an event is to be sent."""
        return self.on is None or event in self.on

    def recipients(self) -> str:
        """Return who is notified, without the address: who knows that may be able to use it."""
        ways = []
        if self.webhook is not None:
            ways.append("a webhook")
        if self.webhook_env is not None:
            ways.append(f"the webhook in {self.webhook_env}")
        if self.command is not None:
            ways.append(f"the command {self.command[0]}")
        return " and ".join(ways)

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, value: str) -> str:
        reason = address_problem(value)
        if reason is not None:
            raise ValueError(reason)
        return value

    def _contradictions(self) -> Iterator[str]:
        if self.webhook is not None and self.webhook_env is not None:
            yield "give webhook or webhook_env, not both"
        if self.webhook is None and self.webhook_env is None and self.command is None:
            yield "notifies nobody; give webhook, webhook_env or command"
        if self.token_env is not None and self.webhook is None and self.webhook_env is None:
            yield "token_env is sent to a webhook; give webhook or webhook_env"


def address_problem(address: str) -> str | None:
    """Return why nothing may be sent to an address; None if it may. It never repeats it."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return "is no valid address"
    if not host or not address.isprintable() or " " in address:
        return "is no valid address"
    if parts.username is not None or parts.password is not None:
        return "must hold no user or password; name a variable in token_env"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must start with https://, or be on this machine (http://127.0.0.1 or localhost)"
