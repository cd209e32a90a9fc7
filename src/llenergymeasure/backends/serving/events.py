"""The server-sent events of a streamed answer: read when it has ended, timed while it came.

While an answer comes in only its bytes and their time are kept, and it is read a few events at a
time, so that reading a long answer does not delay the time stamps of others' tokens. Nothing that
a server writes raises an error here: what cannot be read is a failed request.
"""

import json
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llenergymeasure.backends.serving.exchange import Exchange
from llenergymeasure.redact import excerpt
from llenergymeasure.screen import clean
from llenergymeasure.workload.thinking import judged, thinking_parts

Piece = tuple[int, bytes | bytearray]
"""When bytes came, CLOCK_MONOTONIC in ns, and the bytes."""

_DATA = b"data:"
_DONE = b"[DONE]"
_KEEP_ALIVE = (b"", b"ping")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = (b"\n", b"\r\n", b"\r")

_TEMPLATE_TOKENS = 65_536
"""Tokens that a chat template and a server's own system prompt may add to what was sent."""

_EVENTS_SPARE = 1_000
_EVENTS_A_TOKEN = 16
"""An answer of more events than these allow has no end that would be worth reading."""

_EVENTS_A_STEP = 8
"""An event takes some 25 µs to read on a processor that was idle before."""

GAVE_UP = frozenset(
    {"abort", "aborted", "cancel", "cancelled", "canceled", "content_filter", "error", "failed"}
    | {"insufficient_system_resource", "not_finished", "rejected", "timed_out", "timeout"}
)
"""Finish reasons of answers that are not what was asked for, as servers name them."""

_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
"""What servers call the prompt's tokens that a prefix cache knew, where usage has no details."""

_THOUGHT = re.compile("reasoning|think|thought")
_OTHER_OUTPUT = re.compile("call|refusal|audio")
"""Names of a part's fields that hold output of other kinds than its text, as servers call them."""


def read_answer(exchange: Exchange, pieces: Sequence[Piece], *, whole: bool) -> Iterator[None]:
    """Fill in an exchange from the body of its answer; yield between each few of its events.

    It is complete if it says ``[DONE]``, or gives a finish reason and its HTTP message is complete.
    The last usage counts: some servers send a running one with each part.

    Args:
        exchange: gets token times, usage and finish reason, or the way it failed.
        pieces: the body as it came.
        whole: whether the HTTP answer itself was complete.
    """
    ended_ns = pieces[-1][0] if pieces else exchange.end_ns
    answer = _Reading(exchange)
    try:
        for number, (at_ns, data) in enumerate(_events(pieces), start=1):
            answer.take(at_ns, data)
            if number % _EVENTS_A_STEP == 0:
                yield
        answer.judge(pieces, whole=whole)
    except _AnswerError as failed:
        exchange.token_ns = array("q", [at_ns for at_ns, _ in answer.parts])
        kind, message = failed.args
        exchange.fail(kind, message, ended_ns)
    exchange.end_ns = ended_ns


def says_done(pieces: Sequence[Piece]) -> bool:
    """Return whether the body so far ends with the interface's own mark of the end."""
    return b"".join(data for _, data in pieces[-16:]).rstrip().endswith(_DONE)


class _AnswerError(Exception):
    """The answer is none: the kind of failure, and the reason."""


class _Reading:
    """What the events of one answer have said so far."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.parts: list[tuple[int, bool]] = []
        """When each part came that may hold a token, and whether it shows one."""
        self._shown: list[tuple[bool, str]] = []
        """Of each that shows one whether the server calls it thought, and its text."""
        self._usage: Mapping[str, Any] | None = None
        self._ended_ns = 0
        self._done = False
        self._events = 0
        self._most_events = _EVENTS_SPARE + _EVENTS_A_TOKEN * exchange.asked_tokens

    def take(self, at_ns: int, data: bytes) -> None:
        if data == _DONE:
            self._done = True
            return
        self._events += 1
        if self._events > self._most_events:
            asked = self._exchange.asked_tokens
            raise _AnswerError("malformed", f"over {self._most_events} events for {asked} tokens")
        try:
            self._event(at_ns, json.loads(data))
        except (ValueError, TypeError, AttributeError, RecursionError):
            shown = excerpt(data.decode(errors="replace"), 80)
            raise _AnswerError("malformed", f"an event that is not one: {shown}") from None

    def judge(self, pieces: Sequence[Piece], *, whole: bool) -> None:
        exchange = self._exchange
        if not self._done and not (whole and exchange.finish_reason):
            if whole and not self._events:
                start = b"".join(data for _, data in pieces[:8]).decode(errors="replace")
                said = excerpt(start, 80)
                raise _AnswerError("malformed", f"the answer is no stream of events: {said}")
            raise _AnswerError("truncated", "the answer ended without saying that it is complete")
        if self._usage is None:
            raise _AnswerError("malformed", "the answer came without usage, so nothing counts")
        most = exchange.sent_bytes + _TEMPLATE_TOKENS
        exchange.input_tokens = _count(self._usage, "prompt_tokens", most)
        exchange.cached_tokens = _cached(self._usage, exchange.input_tokens)
        tokens = _count(self._usage, "completion_tokens", exchange.asked_tokens)
        shown = sum(shows for _, shows in self.parts)
        if shown and not tokens:
            raise _AnswerError("malformed", f"usage reports no tokens, and {shown} parts held some")
        if tokens == 1 and not self.parts and self._ended_ns:
            self.parts.append((self._ended_ns, False))  # the mark that ends a sequence, unseen
        if tokens and not self.parts:
            raise _AnswerError("malformed", "usage reports tokens, and none came")
        exchange.output_tokens = tokens
        told = _thinking_told(self._usage)
        # Of an answer that ended, or is shown in part, a server may have taken out the thought.
        cut = exchange.finish_reason == "length" and 10 * shown >= 9 * tokens and not told
        thought = thinking_parts(self._shown, opened=exchange.opens_thought and cut)
        exchange.thinking_tokens, exchange.thinking_differs = judged(thought, shown, tokens, told)
        exchange.hidden_tokens = 0 if thought else exchange.thinking_tokens
        exchange.token_ns = array("q", _token_times(self.parts, tokens))

    def _event(self, at_ns: int, event: Any) -> None:
        is_error = "error" in (event.get("object"), event.get("type"))
        if error := event.get("error") or (event if is_error else None):
            said = excerpt(json.dumps(error), 300)
            raise _AnswerError("truncated", f"the server gave up: {said}")
        usage = event.get("usage") or self._usage
        if not isinstance(usage, dict | None):
            raise TypeError
        self._usage = usage
        for choice in event.get("choices") or ():
            reason = choice.get("finish_reason")
            if reason:
                self._ended_ns = at_ns
                self._ended(reason)
            shown = _shown(choice)
            if shown is not None:
                self._shown.append(shown)
                self.parts.append((at_ns, True))
            elif not (reason or "role" in (choice.get("delta") or ())):
                self.parts.append((at_ns, False))

    def _ended(self, reason: Any) -> None:
        name = reason.get("type") if isinstance(reason, dict) else reason
        self._exchange.finish_reason = clean(excerpt(str(name), 80))
        if str(name).lower() in GAVE_UP:
            raise _AnswerError("truncated", f"the server gave up: finish_reason {name}")


def _shown(choice: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Return whether the server calls a part thought, and its text; None where it shows no output.

    Some tokens are no text yet. Each part of each answer passes here while others are timed.
    """
    delta = choice.get("delta")
    if delta is None:
        text, thought = choice.get("text"), False
        shows = text or choice.get("token_ids")
    else:
        text = delta.get("content")
        thought = not text and _holds(delta, _THOUGHT)
        shows = text or thought or _holds(delta, _OTHER_OUTPUT)
    if not shows:
        return None
    return thought, text if isinstance(text, str) else ""


def _holds(delta: Mapping[str, Any], names: re.Pattern[str]) -> bool:
    return any(value and names.search(name) for name, value in delta.items())


def _thinking_told(usage: Mapping[str, Any]) -> int | None:
    """Return how many tokens the server says were thought; None if it does not, or not rightly."""
    details = usage.get("completion_tokens_details")
    told = _whole((details if isinstance(details, Mapping) else usage).get("reasoning_tokens"))
    return told if told is not None and told >= 0 else None


def _token_times(parts: Sequence[tuple[int, bool]], tokens: int) -> list[int]:
    """Return when the parts came that hold tokens.

    An empty part is half a character, or a sign of life that holds none: some servers begin with
    one before they have computed anything. So an empty part counts only where the tokens need it,
    and those before the first text only where each part is one token.
    """
    leading = next((place for place, (_, shows) in enumerate(parts) if shows), 0)
    none = leading if len(parts) < tokens else len(parts) - tokens
    empty = [place for place, (_, shows) in enumerate(parts) if not shows]
    left_out = set(empty[: max(0, none)])
    return [at_ns for place, (at_ns, _) in enumerate(parts) if place not in left_out]


def _count(usage: Mapping[str, Any], name: str, most: int) -> int:
    """Return one of usage's counts; some servers write it as text."""
    if name not in usage:
        has = clean(excerpt(", ".join(map(str, usage)), 100))
        raise _AnswerError("malformed", f"usage has no {name}; it has {has}")
    value = usage[name]
    number = _whole(value)
    if number is not None and 0 <= number <= most:
        return number
    nested = isinstance(value, list | dict)
    shown = type(value).__name__ if nested else excerpt(json.dumps(value), 40)
    raise _AnswerError(
        "malformed", f"usage.{name} is {shown}, and no whole number from 0 to {most}"
    )


def _cached(usage: Mapping[str, Any], prompt_tokens: int) -> int | None:
    """Return how much of the prompt a prefix cache knew; None where usage does not report it."""
    details = usage.get("prompt_tokens_details")
    told = [details.get("cached_tokens") if isinstance(details, dict) else None]
    told += [usage.get(name) for name in _CACHED]
    number = next((number for number in map(_whole, told) if number is not None), -1)
    return number if 0 <= number <= prompt_tokens else None


def _whole(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[0-9]{1,18}", value) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and value % 1 == 0 else None


def _events(pieces: Sequence[Piece]) -> Iterator[tuple[int, bytes]]:
    """Yield the data of each event with the time at which its last line was complete.

    A blank line ends an event (WHATWG HTML, 9.2.6). Lines that make no event together are taken
    for one event each, as some servers leave the blank lines out.
    """
    body = b"".join(data for _, data in pieces).removeprefix(_BYTE_ORDER_MARK)
    came = iter(pieces)
    at_ns, end = 0, sum(len(data) for _, data in pieces) - len(body)
    reached = 0
    held: list[tuple[int, bytes]] = []
    for line in body.splitlines(keepends=True):
        end += len(line)
        if line.startswith(_DATA):
            while reached < end:
                at_ns, piece = next(came)
                reached += len(piece)
            data = line[len(_DATA) :].strip()
            if data not in _KEEP_ALIVE:
                held.append((at_ns, data))
        elif held and line in _BLANK:
            yield from held if len(held) == 1 else _joined(held)
            held.clear()
    yield from _joined(held)


def _joined(lines: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    """Return several lines of data as the one event that they make, or as one each."""
    together = b"\n".join(data for _, data in lines)
    try:
        json.loads(together)
    except (ValueError, RecursionError):
        return lines
    return [(lines[-1][0], together)]
