"""One request over HTTP and what came back, with the time of every part."""

from array import array
from dataclasses import dataclass, field
from typing import Literal

from llenergymeasure.redact import excerpt
from llenergymeasure.screen import replace_surrogates
from llenergymeasure.units import NS_PER_S

Failure = Literal["refused", "timed_out", "truncated", "malformed"]
"""How a request can fail: no connection or an HTTP error; no end in time; an answer that breaks
off; an answer that is not what the interface promises."""


@dataclass(frozen=True)
class Outgoing:
    """A request as the bytes to send, how many answers it asks for, and their most tokens.

    ``opens_thought`` says whether its prompt ends within a thought.
    """

    content: bytes
    max_tokens: int
    answers: int = 1
    opens_thought: bool = False


@dataclass
class Exchange:
    """One request and its answer. Times are CLOCK_MONOTONIC in nanoseconds.

    Attributes:
        index: its place in the sequence of requests.
        planned_ns: when it was to be sent, settled before anything of it was known.
        due_ns: when its user would have asked, had the client had no work; 0 for planned.
        sent_ns: when it was sent; 0 if it never was.
        sent_bytes: its length; 0 if it never was.
        max_tokens: most that its answer may have; 0 if it never was.
        opens_thought: whether the prompt opened a thought, which the answer begins in.
        end_ns: when the answer was complete or had failed; 0 while it runs.
        token_ns: when each part of the answer that holds output came.
        input_tokens: by the server's account; None if it gave none.
        cached_tokens: of the prompt, found in a prefix cache; None if it does not say.
        output_tokens: likewise; parts of the answer are not counted for it.
        thinking_tokens: those of them that were thought before the answer.
        hidden_tokens: of the thought, those that no part of the answer shows.
        thinking_differs: whether the server counts the thought otherwise; None if it does not.
        finish_reason: as the server gave it.
        failure: how it failed; None if it did not.
        message: what went wrong, in words.
        resent: whether it went out again because the server had just closed the connection.
    """

    index: int
    planned_ns: int
    due_ns: int = 0
    sent_ns: int = 0
    sent_bytes: int = 0
    max_tokens: int = 0
    opens_thought: bool = False
    end_ns: int = 0
    token_ns: "array[int]" = field(default_factory=lambda: array("q"))
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    thinking_tokens: int | None = None
    hidden_tokens: int = 0
    thinking_differs: bool | None = None
    finish_reason: str | None = None
    failure: Failure | None = None
    message: str | None = None
    resent: bool = False

    @property
    def first_ns(self) -> int | None:
        """When the first token came; None without one."""
        return self.token_ns[0] if self.token_ns else None

    @property
    def lateness_s(self) -> float | None:
        """How long after its time it was sent; None if it never was."""
        return (self.sent_ns - self.planned_ns) / NS_PER_S if self.sent_ns else None

    @property
    def held_s(self) -> float | None:
        """How long the client kept its user from asking; None if it was never sent."""
        due_ns = self.due_ns or self.planned_ns
        return (self.sent_ns - due_ns) / NS_PER_S if self.sent_ns else None

    def fail(self, failure: Failure, message: str, at_ns: int) -> None:
        """Mark it as failed; the first reason stays."""
        if self.failure is None:
            self.failure, self.message = failure, replace_surrogates(excerpt(message, 300))
        self.end_ns = self.end_ns or at_ns
