"""Recorded traffic: when requests came, and how long they and their answers were.

Read are the columns of the Azure LLM inference traces (TIMESTAMP, ContextTokens, GeneratedTokens:
github.com/Azure/AzurePublicDataset), of BurstGPT (Timestamp, Request tokens, Response tokens:
github.com/HPMLL/BurstGPT), and plain timestamp, input_tokens, output_tokens; and the JSON Lines of
Mooncake (timestamp in milliseconds, input_length, output_length: github.com/kvcache-ai/Mooncake)
and Qwen-Bailian (with chat_id, in seconds: github.com/alibaba-edu/qwen-bailian-usagetraces-anon).

Sessions of agents, whose turns wait for the answer before and a tool: AIPerf's mooncake_trace
(session_id; delay in milliseconds; input_length of what a turn adds: github.com/ai-dynamo/aiperf)
and Azure's coding agents (a session a line: GitHubCopilotCodingAgentDataset2026, unpacked).
"""

import csv
import functools
import json
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.workload.datasets.files import check_is_file

_COLUMNS = (
    ("timestamp", "contexttokens", "generatedtokens"),
    ("timestamp", "request tokens", "response tokens"),
    ("timestamp", "input_tokens", "output_tokens"),
)
_FULL_PROMPT = "message_array_with_responses"
"""AIPerf's word where input_length is of the whole prompt, the turns before it included."""
_KEY = "serving.trace"
_MAX_TOKENS = 10**9
_MAX_LINE_LENGTH = 1 << 26
"""In characters."""

_MAX_TIME_S = 1e11
"""The year 5138 in seconds since 1970, and 1973 in milliseconds."""


@dataclass(frozen=True)
class Trace:
    """A recorded trace: sessions in the order of arrival, most of them of a single request.

    Attributes:
        offset_s: when each session begins, in seconds from the first, shape (sessions,).
        first_requests: the first request of each, and the number of all, shape (sessions + 1,).
        input_tokens: of whole prompts, shape (requests,).
        output_tokens: shape (requests,).
        gap_s: from the answer before to a request; infinite for a session's first.
        unanswered: rows left out because they had no answer: their failures are not ours.
    """

    offset_s: NDArray[np.float64]
    first_requests: NDArray[np.int64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    gap_s: NDArray[np.float64]
    unanswered: int = 0

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.gap_s)

    @property
    def has_sessions(self) -> bool:
        """Whether any request waits for the answer to another."""
        return len(self) > len(self.offset_s)

    def turns(self, session: int) -> int:
        """Return how many requests a session has; past the end they repeat."""
        index = session % len(self.offset_s)
        return int(self.first_requests[index + 1] - self.first_requests[index])

    def first_request(self, session: int) -> int:
        """Return the number of a session's first request, counted on where they repeat."""
        rounds, index = divmod(session, len(self.offset_s))
        return rounds * len(self) + int(self.first_requests[index])

    def lengths(self, row: int) -> tuple[int, int]:
        """Return the lengths of prompt and answer of one request; past the end it repeats."""
        row %= len(self)
        return int(self.input_tokens[row]), int(self.output_tokens[row])


@functools.lru_cache(maxsize=4)
def read_trace(path: Path, start_s: float = 0.0, speed: float = 1.0) -> Trace:
    """Return the trace in a file.

    Args:
        path: a CSV file, or one in JSON Lines.
        start_s: how long after its first request the part begins that is returned.
        speed: at which it is replayed; from 1000 its times may be in milliseconds, and so on.

    Raises:
        ConfigurationError: it cannot be read, a row is none (the message names the line), or
            nothing comes after ``start_s``.
    """
    check_is_file(path, _KEY)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            jsonl = path.suffix.lower() == ".jsonl"
            text_lines = _text_lines(path, file)
            lines = _json_lines(text_lines) if jsonl else _csv_lines(path, text_lines)
            rows = _parse_rows(path, lines, _MAX_TIME_S * (speed if speed >= 1000 else 1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _error(f"cannot be read: {error}", found=str(path)) from error
    sessions = sorted(_group_sessions(rows), key=lambda session: session[0].at_s)
    if not sessions:
        raise _error("holds no request that was answered", found=str(path))
    unanswered = len(rows) - sum(map(len, sessions))
    begin_s = sessions[0][0].at_s + start_s
    last_s = sessions[-1][0].at_s - sessions[0][0].at_s
    sessions = [session for session in sessions if session[0].at_s >= begin_s]
    if not sessions:
        text = f"the trace {path} ends {last_s:.9g} s after its first request"
        raise _error(text, key="serving.trace_start_seconds", found=f"{start_s:g}")
    first_s = sessions[0][0].at_s
    requests = [row for session in sessions for row in session]
    return Trace(
        offset_s=np.array([session[0].at_s - first_s for session in sessions]),
        first_requests=np.cumsum([0, *map(len, sessions)]),
        input_tokens=np.array([row.input_tokens for row in requests], dtype=np.int64),
        output_tokens=np.array([row.output_tokens for row in requests], dtype=np.int64),
        gap_s=np.array([row.gap_s for row in requests]),
        unanswered=unanswered,
    )


def _error(message: str, **where: Any) -> ConfigurationError:
    return ConfigurationError(Problem(message, **{"key": _KEY, **where}))


class _Row(NamedTuple):
    """A request of a trace: its time and lengths, and its place in a session if it has one.

    ``incremental`` where the prompt's length is without the turns before it.
    """

    at_s: float
    input_tokens: int
    output_tokens: int
    session: Hashable = None
    gap_s: float = math.inf
    incremental: bool = False


def _group_sessions(rows: Iterable[_Row]) -> Iterator[Sequence[_Row]]:
    """Yield the answered requests of each session, with the lengths of their whole prompts."""
    turns_by_session: dict[Hashable, list[_Row]] = {}
    for row in rows:
        if row.session is not None:
            turns_by_session.setdefault(row.session, []).append(row)
        elif row.input_tokens and row.output_tokens:
            yield (row,)
    for turns in turns_by_session.values():
        session: list[_Row] = []
        history_tokens, gap_s = 0, 0.0
        for row in turns:
            input_tokens = row.input_tokens + (history_tokens if row.incremental else 0)
            history_tokens = input_tokens + row.output_tokens
            gap_s += row.gap_s
            if input_tokens and row.output_tokens:
                turn_gap_s = gap_s if session else math.inf
                session.append(
                    _Row(turns[0].at_s, input_tokens, row.output_tokens, gap_s=turn_gap_s)
                )
                gap_s = 0.0
        if session:
            yield session


_Fields = tuple[int, Sequence[Any], str]
"""A row's line, what it says of each field of :class:`_Row`, and the line's text."""


def _text_lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield its lines; one of a file with holes is as long as its maker likes."""
    pieces = iter(functools.partial(file.readline, _MAX_LINE_LENGTH), "")
    for number, line in enumerate(pieces, start=1):
        if len(line) == _MAX_LINE_LENGTH:
            raise _error("a line of over 64 Mi characters", file=path, line=number)
        yield line


def _csv_lines(path: Path, file: Iterable[str]) -> Iterator[_Fields]:
    csv.field_size_limit(_MAX_LINE_LENGTH)
    lines = csv.reader(file)
    header = [name.strip().lower() for name in next(lines, [])]
    columns = next((names for names in _COLUMNS if set(names) <= set(header)), None)
    if columns is None:
        text = (
            "is no trace: its first line must name TIMESTAMP, ContextTokens, GeneratedTokens "
            "(Azure), or Timestamp, Request tokens, Response tokens (BurstGPT), or timestamp, "
            "input_tokens, output_tokens"
        )
        raise _error(text, found=", ".join(header)[:200], file=path, line=1)
    indices = [header.index(name) for name in columns]
    for number, line in enumerate(lines, start=2):
        if line:
            fits = len(line) == len(header)
            yield number, [line[index] for index in indices] if fits else (), ",".join(line)


def _json_lines(file: Iterable[str]) -> Iterator[_Fields]:
    session_ids: set[Hashable] = set()
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if "llm_calls" in line:
                for fields in _agent_call_fields(values, number):
                    yield number, fields, line
            else:
                yield number, _mooncake_fields(values, session_ids), line
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            yield number, [], line


def _mooncake_fields(values: Mapping[str, Any], session_ids: set[Hashable]) -> list[Any]:
    """Return the fields of a row of Mooncake's, Qwen-Bailian's or AIPerf's."""
    session = values.get("session_id")
    lengths = [values[name] for name in ("input_length", "output_length")]
    if session is None or session not in session_ids:
        session_ids.add(session)
        at_s = float(values["timestamp"]) / (1 if "chat_id" in values else 1000)
        return [at_s, *lengths] if session is None else [at_s, *lengths, session, 0.0]
    delay = values.get("delay")
    gap_s = None if delay is None else float(delay) / 1000
    return [0.0, *lengths, session, gap_s, values.get("context_mode") != _FULL_PROMPT]


def _agent_call_fields(session: Mapping[str, Any], number: int) -> Iterator[list[Any]]:
    """Yield the fields of each call of a session of Azure's; after tools the next one comes."""
    calls = [call for turn in session["turns"] for call in turn.get("llm_calls") or ()]
    end_s = math.inf
    for at_s, index in sorted((_to_seconds(call["timestamp"]), n) for n, call in enumerate(calls)):
        tokens = calls[index]["tokens"] or {}
        input_tokens, output_tokens = tokens.get("prompt") or 0, tokens.get("completion") or 0
        was_answered = input_tokens and output_tokens
        gap_s = max(0.0, at_s - end_s) if was_answered else 0.0
        yield [at_s, input_tokens, output_tokens, (number,), gap_s]
        if was_answered:
            end_s = at_s + float(calls[index]["duration_ms"]) / 1000


def _parse_rows(path: Path, lines: Iterable[_Fields], max_time_s: float) -> list[_Row]:
    rows = []
    for number, fields, line in lines:
        try:
            rows.append(_parse_row(fields, max_time_s))
        except ValueError as error:
            text = f"a row that is none: {error}"
            raise _error(text, found=line.strip()[:80], file=path, line=number) from error
    return rows


def _parse_row(fields: Sequence[Any], max_time_s: float) -> _Row:
    if not fields:
        raise ValueError("its fields are other than the heading's or the format's")
    padded: list[Any] = [*fields, *(None, math.inf, False)[len(fields) - 3 :]]
    timestamp, inputs, outputs, session, gap_s, incremental = padded
    if gap_s is None:
        raise ValueError("a later turn of its session, without the delay after the answer before")
    if session is not None and not 0 <= gap_s < math.inf:
        raise ValueError(f"no pause: {gap_s:g} s")
    at_s = _to_seconds(timestamp)
    if abs(at_s) > max_time_s:
        raise ValueError(
            f"no time in seconds, but in milliseconds or finer: {timestamp} "
            "(serving.trace_speed: 1000 replays milliseconds)"
        )
    return _Row(at_s, _to_tokens(inputs), _to_tokens(outputs), session, gap_s, incremental)


def _to_tokens(value: Any) -> int:
    tokens = float(str(value))
    if not 0 <= tokens <= _MAX_TOKENS or tokens != int(tokens):
        raise ValueError(f"no number of tokens: {str(value)[:40]}")
    return int(tokens)


_ZONE = re.compile(r"\s+([+-]\d\d:?\d\d)$")


def _to_seconds(value: Any) -> float:
    """Return a time stamp in seconds: a number, or a date and time."""
    try:
        number = float(value)
    except ValueError:
        moment = datetime.fromisoformat(_ZONE.sub(r"\1", value.strip().removesuffix("UTC").strip()))
        number = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(number):
        raise ValueError(f"no time: {value}")
    return number
