"""The server-sent events of a streamed answer: read when it has ended, timed while it came.

While an answer comes in only its bytes and their time are kept, so that reading one answer never
delays the time stamps of another's tokens by more than one answer takes to read.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from llenergymeasure.backends.serving.exchange import Exchange

_DATA = b"data:"
_DONE = b"[DONE]"

Piece = tuple[int, bytes]
"""When bytes came, CLOCK_MONOTONIC in ns, and the bytes."""


def read_answer(exchange: Exchange, pieces: Sequence[Piece], *, whole: bool) -> None:
    """Fill in an exchange from the body of its answer.

    A part counts as output if it carries text, or is neither the answer's end nor the mere
    announcement of a role: some tokens are no text yet (half a character).

    Args:
        exchange: gets token times, usage and finish reason, or the way it failed.
        pieces: the body as it came.
        whole: whether the HTTP answer itself was complete.
    """
    ended_ns = pieces[-1][0] if pieces else exchange.end_ns
    done = False
    for at_ns, data in _events(pieces):
        if data == _DONE:
            done = True
            continue
        try:
            event = json.loads(data)
            _take(exchange, at_ns, event)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError):
            shown = data[:80].decode(errors="replace")
            exchange.fail("malformed", f"an event that is not one: {shown}", ended_ns)
            return
        if exchange.failure is not None:
            exchange.end_ns = ended_ns
            return
    if not whole or not done or exchange.finish_reason is None:
        exchange.fail("truncated", "the answer ended without saying that it is complete", ended_ns)
    elif exchange.output_tokens is None:
        exchange.fail("malformed", "the answer came without usage, so nothing counts", ended_ns)
    elif exchange.output_tokens and not exchange.token_ns:
        exchange.fail("malformed", "usage tells of tokens, and none came", ended_ns)
    exchange.end_ns = ended_ns


def _take(exchange: Exchange, at_ns: int, event: Any) -> None:
    if event.get("error"):
        exchange.fail("truncated", f"the server gave up: {json.dumps(event['error'])}", at_ns)
        return
    usage = event.get("usage")
    if usage:
        exchange.input_tokens = int(usage["prompt_tokens"])
        exchange.output_tokens = int(usage.get("completion_tokens") or 0)
    for choice in event.get("choices") or ():
        reason = choice.get("finish_reason")
        if reason is not None:
            exchange.finish_reason = str(reason)
        if _is_output(choice, ended=reason is not None):
            exchange.token_ns.append(at_ns)


def _is_output(choice: dict[str, Any], *, ended: bool) -> bool:
    delta = choice.get("delta")
    if delta is None:
        return bool(choice.get("text")) or not ended
    for name in ("content", "reasoning_content", "reasoning", "tool_calls"):
        if delta.get(name):
            return True
    return not ended and "role" not in delta


def _events(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the data of each event with the time at which its last byte came."""
    rest = b""
    for at_ns, piece in pieces:
        *lines, rest = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                yield at_ns, line[len(_DATA) :].strip()
