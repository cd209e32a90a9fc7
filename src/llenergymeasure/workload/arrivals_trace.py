"""Recorded traffic: when requests came, and how long they and their answers were.

Read are the columns of the Azure LLM inference traces (TIMESTAMP, ContextTokens, GeneratedTokens:
github.com/Azure/AzurePublicDataset), of BurstGPT (Timestamp, Request tokens, Response tokens:
github.com/HPMLL/BurstGPT), and plain timestamp, input_tokens, output_tokens; and the JSON Lines of
Mooncake (timestamp in milliseconds, input_length, output_length: github.com/kvcache-ai/Mooncake)
and Qwen-Bailian (with chat_id, in seconds: github.com/alibaba-edu/qwen-bailian-usagetraces-anon).
"""

import csv
import functools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.workload.datasets.files import only_a_file

_COLUMNS = (
    ("timestamp", "contexttokens", "generatedtokens"),
    ("timestamp", "request tokens", "response tokens"),
    ("timestamp", "input_tokens", "output_tokens"),
)
_MOONCAKE = ("timestamp", "input_length", "output_length")
_KEY = "serving.trace"
_MOST_TOKENS = 10**9
_LATEST_S = 1e11
"""The year 5138 in seconds since 1970, and 1973 in milliseconds."""


@dataclass(frozen=True)
class Trace:
    """A recorded trace, in the order of arrival.

    Attributes:
        offset_s: seconds from the first arrival, shape (requests,).
        input_tokens: shape (requests,).
        output_tokens: shape (requests,).
        unanswered: rows left out because they had no answer: their failures are not ours.
    """

    offset_s: NDArray[np.float64]
    input_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    unanswered: int = 0

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.offset_s)

    def lengths(self, row: int) -> tuple[int, int]:
        """Return the lengths of prompt and answer of one request; past the end it repeats."""
        row %= len(self)
        return int(self.input_tokens[row]), int(self.output_tokens[row])


@functools.lru_cache(maxsize=4)
def read_trace(path: Path, start_s: float = 0.0) -> Trace:
    """Return the trace in a file.

    Args:
        path: a CSV file, or one in JSON Lines.
        start_s: how long after its first request the part begins that is returned.

    Raises:
        ConfigurationError: it cannot be read, a row is none (the message names the line), or
            nothing comes after ``start_s``.
    """
    only_a_file(path, _KEY)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            read = _json_lines if path.suffix.lower() == ".jsonl" else _csv_lines
            rows, unanswered = _rows(path, read(path, file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refused(f"cannot be read: {error}", found=str(path)) from error
    if not rows:
        raise _refused("holds no request that was answered", found=str(path))
    rows.sort(key=lambda row: row[0])
    begin_s = rows[0][0] + start_s
    last_s = rows[-1][0] - rows[0][0]
    rows = [row for row in rows if row[0] >= begin_s]
    if not rows:
        text = f"the trace {path} ends {last_s:.9g} s after its first request"
        raise _refused(text, key="serving.trace_start_seconds", found=f"{start_s:g}")
    first_s = rows[0][0]
    return Trace(
        offset_s=np.array([row[0] - first_s for row in rows]),
        input_tokens=np.array([row[1] for row in rows], dtype=np.int64),
        output_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        unanswered=unanswered,
    )


def _refused(message: str, **where: Any) -> ConfigurationError:
    return ConfigurationError(Problem(message, **{"key": _KEY, **where}))


_Fields = tuple[int, Sequence[Any], str]
"""A line's number, its time, lengths of prompt and answer, and what it says."""


def _csv_lines(path: Path, file: Iterable[str]) -> Iterator[_Fields]:
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


def _json_lines(path: Path, file: Iterable[str]) -> Iterator[_Fields]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if {"session_id", "delay"} & set(values):
                text = (
                    "a turn of a session (session_id, delay), whose prompt holds those before it: "
                    "sessions of a trace are not replayed; serving.turns and "
                    "serving.think_seconds make some"
                )
                raise _refused(text, file=path, line=number)
            at, asked, answered = (values[name] for name in _MOONCAKE)
            fields = [float(at) if "chat_id" in values else float(at) / 1000, asked, answered]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            fields = []
        yield number, fields, line


def _rows(path: Path, lines: Iterable[_Fields]) -> tuple[list[tuple[float, int, int]], int]:
    rows, unanswered = [], 0
    for number, fields, line in lines:
        try:
            row = _row(fields)
        except ValueError as error:
            text = f"a row that is none: {error}"
            raise _refused(text, found=line.strip()[:80], file=path, line=number) from error
        if row[1] == 0 or row[2] == 0:
            unanswered += 1
        else:
            rows.append(row)
    return rows, unanswered


def _row(fields: Sequence[Any]) -> tuple[float, int, int]:
    if not fields:
        raise ValueError("its fields are other than the heading's or the format's")
    at_s, asked, answered = fields
    return _seconds(at_s), _tokens(asked), _tokens(answered)


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
    if abs(number) > _LATEST_S:
        raise ValueError(f"no time in seconds, but in milliseconds or finer: {said}")
    return number
