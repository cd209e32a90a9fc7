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
from llenergymeasure.screen import replace_surrogates
from llenergymeasure.workload.thinking import reconcile, thinking_parts

Piece = tuple[int, bytes | bytearray]
"""When bytes came, CLOCK_MONOTONIC in ns, and the bytes."""

_DATA = b"data:"
_DONE = b"[DONE]"
_KEEP_ALIVE = (b"", b"ping")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = (b"\n", b"\r\n", b"\r")

_TEMPLATE_TOKENS = 65_536
"""Tokens that a chat template and a server's own system prompt may add to what was sent."""

_EXTRA_EVENTS = 1_000
_EVENTS_PER_TOKEN = 16
"""An answer of more events than these allow has no end that would be worth reading."""

_EVENTS_PER_STEP = 8
"""An event takes some 25 µs to read on a processor that was idle before."""

GAVE_UP = frozenset(
    {"abort", "aborted", "cancel", "cancelled", "canceled", "content_filter", "error", "failed"}
    | {"insufficient_system_resource", "not_finished", "rejected", "timed_out", "timeout"}
)
"""Finish reasons of answers that are not what was asked for, as servers name them."""

_CACHED_FIELDS = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
"""What servers call the prompt's tokens that a prefix cache knew, where usage has no details."""

_THOUGHT_FIELDS = re.compile("reasoning|think|thought")
_OTHER_FIELDS = re.compile("call|refusal|audio")
"""Names of a part's fields that hold output of other kinds than its text, as servers call them."""


def read_answer(exchange: Exchange, pieces: Sequence[Piece], *, complete: bool) -> Iterator[None]:
    """Fill in an exchange from the body of its answer; yield between each few of its events.

    It is complete if it says ``[DONE]``, or gives a finish reason and its HTTP message is complete.
    The last usage counts: some servers send a running one with each part.

    Args:
        exchange: gets token times, usage and finish reason, or the way it failed.
        pieces: the body as it came.
        complete: whether the HTTP answer itself was complete.
    """
    ended_ns = pieces[-1][0] if pieces else exchange.end_ns
    reader = _AnswerReader(exchange)
    try:
        for count, (at_ns, data) in enumerate(_events(pieces), start=1):
            reader.add(at_ns, data)
            if count % _EVENTS_PER_STEP == 0:
                yield
        reader.finish(pieces, complete=complete)
    except _AnswerError as error:
        exchange.token_ns = array("q", [at_ns for at_ns, _ in reader.parts])
        kind, message = error.args
        exchange.fail(kind, message, ended_ns)
    exchange.end_ns = ended_ns


def ends_with_done(pieces: Sequence[Piece]) -> bool:
    """Return whether the body so far ends with the interface's own mark of the end."""
    return b"".join(data for _, data in pieces[-16:]).rstrip().endswith(_DONE)


class _AnswerError(Exception):
    """The answer is none: the kind of failure, and the reason."""


class _AnswerReader:
    """What the events of one answer have said so far."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.parts: list[tuple[int, bool]] = []
        """When each part came that may hold a token, and whether it shows one."""
        self._visible: list[tuple[bool, str]] = []
        """Of each that shows one whether the server calls it thought, and its text."""
        self._usage: Mapping[str, Any] | None = None
        self._end_ns = 0
        self._done = False
        self._events = 0
        self._max_events = _EXTRA_EVENTS + _EVENTS_PER_TOKEN * exchange.max_tokens

    def add(self, at_ns: int, data: bytes) -> None:
        if data == _DONE:
            self._done = True
            return
        self._events += 1
        if self._events > self._max_events:
            tokens = self._exchange.max_tokens
            raise _AnswerError("malformed", f"over {self._max_events} events for {tokens} tokens")
        try:
            self._event(at_ns, json.loads(data))
        except (ValueError, TypeError, AttributeError, RecursionError):
            text = excerpt(data.decode(errors="replace"), 80)
            raise _AnswerError("malformed", f"an event that is not one: {text}") from None

    def finish(self, pieces: Sequence[Piece], *, complete: bool) -> None:
        exchange = self._exchange
        if not self._done and not (complete and exchange.finish_reason):
            if complete and not self._events:
                text = b"".join(data for _, data in pieces[:8]).decode(errors="replace")
                text = excerpt(text, 80)
                raise _AnswerError("malformed", f"the answer is no stream of events: {text}")
            raise _AnswerError("truncated", "the answer ended without saying that it is complete")
        if self._usage is None:
            raise _AnswerError("malformed", "the answer came without usage, so nothing counts")
        limit = exchange.sent_bytes + _TEMPLATE_TOKENS
        exchange.input_tokens = _count(self._usage, "prompt_tokens", limit)
        exchange.cached_tokens = _cached_tokens(self._usage, exchange.input_tokens)
        tokens = _count(self._usage, "completion_tokens", exchange.max_tokens)
        visible = sum(is_visible for _, is_visible in self.parts)
        if visible and not tokens:
            raise _AnswerError(
                "malformed", f"usage reports no tokens, and {visible} parts held some"
            )
        if tokens == 1 and not self.parts and self._end_ns:
            self.parts.append((self._end_ns, False))  # the mark that ends a sequence, unseen
        if tokens and not self.parts:
            raise _AnswerError("malformed", "usage reports tokens, and none came")
        exchange.output_tokens = tokens
        reported = _reported_thinking_tokens(self._usage)
        # Of an answer that ended, or is shown in part, a server may have taken out the thought.
        cut_off = exchange.finish_reason == "length" and 10 * visible >= 9 * tokens and not reported
        thinking = thinking_parts(self._visible, opened=exchange.opens_thought and cut_off)
        exchange.thinking_tokens, exchange.thinking_differs = reconcile(
            thinking, visible, tokens, reported
        )
        exchange.hidden_tokens = 0 if thinking else exchange.thinking_tokens
        exchange.token_ns = array("q", _token_times(self.parts, tokens))

    def _event(self, at_ns: int, event: Any) -> None:
        is_error = "error" in (event.get("object"), event.get("type"))
        if error := event.get("error") or (event if is_error else None):
            error_text = excerpt(json.dumps(error), 300)
            raise _AnswerError("truncated", f"the server gave up: {error_text}")
        usage = event.get("usage") or self._usage
        if not isinstance(usage, dict | None):
            raise TypeError
        self._usage = usage
        for choice in event.get("choices") or ():
            reason = choice.get("finish_reason")
            if reason:
                self._end_ns = at_ns
                self._set_finish_reason(reason)
            output = _visible_output(choice)
            if output is not None:
                self._visible.append(output)
                self.parts.append((at_ns, True))
            elif not (reason or "role" in (choice.get("delta") or ())):
                self._add_empty_part(at_ns)

    def _add_empty_part(self, at_ns: int) -> None:
        """Note one that may hold a token; after the end, as LiteLLM's with usage, it holds none."""
        if not self._end_ns:
            self.parts.append((at_ns, False))
        elif not self.parts:
            self.parts.append((self._end_ns, False))  # the text of the end's own tokens is empty

    def _set_finish_reason(self, reason: Any) -> None:
        name = reason.get("type") if isinstance(reason, dict) else reason
        self._exchange.finish_reason = replace_surrogates(excerpt(str(name), 80))
        if str(name).lower() in GAVE_UP:
            raise _AnswerError("truncated", f"the server gave up: finish_reason {name}")


def _visible_output(choice: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Return whether the server calls a part thought, and its text; None where it shows no output.

    Some tokens are no text yet. Each part of each answer passes here while others are timed.
    """
    delta = choice.get("delta")
    if delta is None:
        text, is_thought = choice.get("text"), False
        is_visible = text or choice.get("token_ids")
    else:
        text = delta.get("content")
        is_thought = not text and _has_value(delta, _THOUGHT_FIELDS)
        is_visible = text or is_thought or _has_value(delta, _OTHER_FIELDS)
    if not is_visible:
        return None
    return is_thought, text if isinstance(text, str) else ""


def _has_value(delta: Mapping[str, Any], names: re.Pattern[str]) -> bool:
    return any(value and names.search(name) for name, value in delta.items())


def _reported_thinking_tokens(usage: Mapping[str, Any]) -> int | None:
    """Return how many tokens the server says were thought; None if it does not, or not rightly."""
    details = usage.get("completion_tokens_details")
    source = details if isinstance(details, Mapping) else usage
    reported = _as_integer(source.get("reasoning_tokens"))
    return reported if reported is not None and reported >= 0 else None


def _token_times(parts: Sequence[tuple[int, bool]], tokens: int) -> list[int]:
    """Return when the parts came that hold tokens.

    An empty part is half a character, or a sign of life that holds none: some servers begin with
    one before they have computed anything. So an empty part counts only where the tokens need it,
    and those before the first text only where each part is one token.
    """
    leading = next((index for index, (_, is_visible) in enumerate(parts) if is_visible), 0)
    uncounted = leading if len(parts) < tokens else len(parts) - tokens
    empty = [index for index, (_, is_visible) in enumerate(parts) if not is_visible]
    excluded = set(empty[:uncounted])
    return [at_ns for index, (at_ns, _) in enumerate(parts) if index not in excluded]


def _count(usage: Mapping[str, Any], name: str, limit: int) -> int:
    """Return one of usage's counts; some servers write it as text."""
    if name not in usage:
        names = replace_surrogates(excerpt(", ".join(map(str, usage)), 100))
        raise _AnswerError("malformed", f"usage has no {name}; it has {names}")
    value = usage[name]
    number = _as_integer(value)
    if number is not None and 0 <= number <= limit:
        return number
    nested = isinstance(value, list | dict)
    text = type(value).__name__ if nested else excerpt(json.dumps(value), 40)
    raise _AnswerError(
        "malformed", f"usage.{name} is {text}, and no whole number from 0 to {limit}"
    )


def _cached_tokens(usage: Mapping[str, Any], prompt_tokens: int) -> int | None:
    """Return how much of the prompt a prefix cache knew; None where usage does not report it."""
    details = usage.get("prompt_tokens_details")
    candidates = [details.get("cached_tokens") if isinstance(details, dict) else None]
    candidates += [usage.get(name) for name in _CACHED_FIELDS]
    number = next((number for number in map(_as_integer, candidates) if number is not None), -1)
    return number if 0 <= number <= prompt_tokens else None


def _as_integer(value: Any) -> int | None:
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
    remaining = iter(pieces)
    at_ns, end = 0, sum(len(data) for _, data in pieces) - len(body)
    read_bytes = 0
    data_lines: list[tuple[int, bytes]] = []
    for line in body.splitlines(keepends=True):
        end += len(line)
        if line.startswith(_DATA):
            while read_bytes < end:
                at_ns, piece = next(remaining)
                read_bytes += len(piece)
            data = line[len(_DATA) :].strip()
            if data not in _KEEP_ALIVE:
                data_lines.append((at_ns, data))
        elif data_lines and line in _BLANK:
            yield from data_lines if len(data_lines) == 1 else _join(data_lines)
            data_lines.clear()
    yield from _join(data_lines)


def _join(lines: Sequence[tuple[int, bytes]]) -> Sequence[tuple[int, bytes]]:
    """Return several lines of data as the one event that they make, or as one each."""
    joined = b"\n".join(data for _, data in lines)
    try:
        json.loads(joined)
    except (ValueError, RecursionError):
        return lines
    return [(lines[-1][0], joined)]
