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
from llenergymeasure.workload.datasets.files import only_a_file

_COLUMNS = (
    ("timestamp", "contexttokens", "generatedtokens"),
    ("timestamp", "request tokens", "response tokens"),
    ("timestamp", "input_tokens", "output_tokens"),
)
_WHOLE = "message_array_with_responses"
"""AIPerf's word where input_length is of the whole prompt, the turns before it included."""
_KEY = "serving.trace"
_MOST_TOKENS = 10**9
_LONGEST_LINE = 1 << 26
"""In characters."""

_LATEST_S = 1e11
"""The year 5138 in seconds since 1970, and 1973 in milliseconds."""


@dataclass(frozen=True)
class Trace:
    """A recorded trace: sessions in the order of arrival, most of them of a single request.

    Attributes:
        offset_s: when each session begins, in seconds from the first, shape (sessions,).
        begins: the first request of each, and the number of all, shape (sessions + 1,).
        input_tokens: of whole prompts, shape (requests,).
        output_tokens: shape (requests,).
        gap_s: from the answer before to a request; infinite for a session's first.
        unanswered: rows left out because they had no answer: their failures are not ours.
    """

    offset_s: NDArray[np.float64]
    begins: NDArray[np.int64]
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
        place = session % len(self.offset_s)
        return int(self.begins[place + 1] - self.begins[place])

    def first(self, session: int) -> int:
        """Return the number of a session's first request, counted on where they repeat."""
        around, place = divmod(session, len(self.offset_s))
        return around * len(self) + int(self.begins[place])

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
    only_a_file(path, _KEY)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            jsonl = path.suffix.lower() == ".jsonl"
            read = _text_lines(path, file)
            lines = _json_lines(read) if jsonl else _csv_lines(path, read)
            rows = _rows(path, lines, _LATEST_S * (speed if speed >= 1000 else 1))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refused(f"cannot be read: {error}", found=str(path)) from error
    sessions = sorted(_sessions(rows), key=lambda session: session[0].at_s)
    if not sessions:
        raise _refused("holds no request that was answered", found=str(path))
    unanswered = len(rows) - sum(map(len, sessions))
    begin_s = sessions[0][0].at_s + start_s
    last_s = sessions[-1][0].at_s - sessions[0][0].at_s
    sessions = [session for session in sessions if session[0].at_s >= begin_s]
    if not sessions:
        text = f"the trace {path} ends {last_s:.9g} s after its first request"
        raise _refused(text, key="serving.trace_start_seconds", found=f"{start_s:g}")
    first_s = sessions[0][0].at_s
    requests = [row for session in sessions for row in session]
    return Trace(
        offset_s=np.array([session[0].at_s - first_s for session in sessions]),
        begins=np.cumsum([0, *map(len, sessions)]),
        input_tokens=np.array([row.asked for row in requests], dtype=np.int64),
        output_tokens=np.array([row.answered for row in requests], dtype=np.int64),
        gap_s=np.array([row.gap_s for row in requests]),
        unanswered=unanswered,
    )


def _refused(message: str, **where: Any) -> ConfigurationError:
    return ConfigurationError(Problem(message, **{"key": _KEY, **where}))


class _Row(NamedTuple):
    """A request of a trace: its time and lengths, and its place in a session if it has one.

    ``adds`` where the prompt's length is without the turns before it.
    """

    at_s: float
    asked: int
    answered: int
    session: Hashable = None
    gap_s: float = math.inf
    adds: bool = False


def _sessions(rows: Iterable[_Row]) -> Iterator[Sequence[_Row]]:
    """Yield the answered requests of each session, with the lengths of their whole prompts."""
    found: dict[Hashable, list[_Row]] = {}
    for row in rows:
        if row.session is not None:
            found.setdefault(row.session, []).append(row)
        elif row.asked and row.answered:
            yield (row,)
    for turns in found.values():
        session: list[_Row] = []
        history, gap_s = 0, 0.0
        for row in turns:
            asked = row.asked + (history if row.adds else 0)
            history = asked + row.answered
            gap_s += row.gap_s
            if asked and row.answered:
                waits_s = gap_s if session else math.inf
                session.append(_Row(turns[0].at_s, asked, row.answered, gap_s=waits_s))
                gap_s = 0.0
        if session:
            yield session


_Fields = tuple[int, Sequence[Any], str]
"""A row's line, what it says of each field of :class:`_Row`, and the line's text."""


def _text_lines(path: Path, file: TextIO) -> Iterator[str]:
    """Yield its lines; one of a file with holes is as long as its maker likes."""
    pieces = iter(functools.partial(file.readline, _LONGEST_LINE), "")
    for number, line in enumerate(pieces, start=1):
        if len(line) == _LONGEST_LINE:
            raise _refused("a line of over 64 Mi characters", file=path, line=number)
        yield line


def _csv_lines(path: Path, file: Iterable[str]) -> Iterator[_Fields]:
    csv.field_size_limit(_LONGEST_LINE)
    lines = csv.reader(file)
    heading = [name.strip().lower() for name in next(lines, [])]
    columns = next((names for names in _COLUMNS if set(names) <= set(heading)), None)
    if columns is None:
        text = (
            "is no trace: its first line must name TIMESTAMP, ContextTokens, GeneratedTokens "
            "(Azure), or Timestamp, Request tokens, Response tokens (BurstGPT), or timestamp, "
            "input_tokens, output_tokens"
        )
        raise _refused(text, found=", ".join(heading)[:200], file=path, line=1)
    places = [heading.index(name) for name in columns]
    for number, line in enumerate(lines, start=2):
        if line:
            fits = len(line) == len(heading)
            yield number, [line[place] for place in places] if fits else (), ",".join(line)


def _json_lines(file: Iterable[str]) -> Iterator[_Fields]:
    seen: set[Hashable] = set()
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if "llm_calls" in line:
                yield from ((number, fields, line) for fields in _agents_calls(values, number))
            else:
                yield number, _mooncakes(values, seen), line
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            yield number, [], line


def _mooncakes(values: Mapping[str, Any], seen: set[Hashable]) -> list[Any]:
    """Return the fields of a row of Mooncake's, Qwen-Bailian's or AIPerf's."""
    session = values.get("session_id")
    lengths = [values[name] for name in ("input_length", "output_length")]
    if session is None or session not in seen:
        seen.add(session)
        at_s = float(values["timestamp"]) / (1 if "chat_id" in values else 1000)
        return [at_s, *lengths] if session is None else [at_s, *lengths, session, 0.0]
    delay = values.get("delay")
    gap_s = None if delay is None else float(delay) / 1000
    return [0.0, *lengths, session, gap_s, values.get("context_mode") != _WHOLE]


def _agents_calls(session: Mapping[str, Any], number: int) -> Iterator[list[Any]]:
    """Yield the fields of each call of a session of Azure's; after tools the next one comes."""
    calls = [call for turn in session["turns"] for call in turn.get("llm_calls") or ()]
    ended_s = math.inf
    for at_s, place in sorted((_seconds(call["timestamp"]), n) for n, call in enumerate(calls)):
        tokens = calls[place]["tokens"] or {}
        asked, answered = tokens.get("prompt") or 0, tokens.get("completion") or 0
        good = asked and answered
        yield [at_s, asked, answered, (number,), max(0.0, at_s - ended_s) if good else 0.0]
        if good:
            ended_s = at_s + float(calls[place]["duration_ms"]) / 1000


def _rows(path: Path, lines: Iterable[_Fields], latest_s: float) -> list[_Row]:
    rows = []
    for number, fields, line in lines:
        try:
            rows.append(_row(fields, latest_s))
        except ValueError as error:
            text = f"a row that is none: {error}"
            raise _refused(text, found=line.strip()[:80], file=path, line=number) from error
    return rows


def _row(fields: Sequence[Any], latest_s: float) -> _Row:
    if not fields:
        raise ValueError("its fields are other than the heading's or the format's")
    complete: list[Any] = [*fields, *(None, math.inf, False)[len(fields) - 3 :]]
    at, asked, answered, session, gap_s, adds = complete
    if gap_s is None:
        raise ValueError("a later turn of its session, without the delay after the answer before")
    if session is not None and not 0 <= gap_s < math.inf:
        raise ValueError(f"no pause: {gap_s:g} s")
    at_s = _seconds(at)
    if abs(at_s) > latest_s:
        raise ValueError(
            f"no time in seconds, but in milliseconds or finer: {at} "
            "(serving.trace_speed: 1000 replays milliseconds)"
        )
    return _Row(at_s, _tokens(asked), _tokens(answered), session, gap_s, adds)


def _tokens(said: Any) -> int:
    tokens = float(str(said))
    if not 0 <= tokens <= _MOST_TOKENS or tokens != int(tokens):
        raise ValueError(f"no number of tokens: {str(said)[:40]}")
    return int(tokens)


_ZONE = re.compile(r"\s+([+-]\d\d:?\d\d)$")


def _seconds(said: Any) -> float:
    """Return a time stamp in seconds: a number, or a date and time."""
    try:
        number = float(said)
    except ValueError:
        moment = datetime.fromisoformat(_ZONE.sub(r"\1", said.strip().removesuffix("UTC").strip()))
        number = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(number):
        raise ValueError(f"no time: {said}")
    return number
