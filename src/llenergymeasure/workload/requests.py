"""What an engine is asked to do: prompts as token ids, and how long each answer shall be."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """One prompt as token ids, and how many tokens to generate for it."""

    index: int
    prompt_token_ids: tuple[int, ...]
    max_output_tokens: int
    messages: tuple[Mapping[str, str], ...] = field(default=(), compare=False, repr=False)
    """The chat that the token ids are, for interfaces that take nothing else; else empty."""


@dataclass(frozen=True)
class Workload:
    """The requests of an experiment, in the order in which batches are cut from them.

    Attributes:
        requests: in batch order; ``index`` counts from 0 in this order.
        prompt_hash: what was asked, apart from its order (see :func:`prompt_hash`).
        notes: what the reader of a result should know, such as prompts used twice.
        template_sha256: of the chat template; None where no prompt went through one.
        longest_in_trace_tokens: prompt and answer together, where sessions of a trace are
            replayed, which the requests only begin; else 0.
    """

    requests: tuple[Request, ...]
    prompt_hash: str
    notes: tuple[str, ...] = field(default=())
    template_sha256: str | None = None
    longest_in_trace_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        """Return the sum of the prompts' lengths, in tokens."""
        return sum(len(request.prompt_token_ids) for request in self.requests)

    @property
    def output_tokens(self) -> int:
        """Return the sum of the tokens asked for."""
        return sum(request.max_output_tokens for request in self.requests)


def prompt_hash(requests: tuple[Request, ...]) -> str:
    """Return the SHA-256 over all prompts' token ids and asked lengths, as 64 hex digits.

    Two runs with the same hash did the same work and may be compared. The order of the requests
    does not enter: it is a setting under study (``dataset_order``), not the work itself.
    """
    digests = sorted(
        hashlib.sha256(
            struct.pack(
                f"<QQ{len(request.prompt_token_ids)}Q",
                request.max_output_tokens,
                len(request.prompt_token_ids),
                *request.prompt_token_ids,
            )
        ).digest()
        for request in requests
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()
