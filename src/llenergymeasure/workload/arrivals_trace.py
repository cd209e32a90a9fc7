"""Recorded traffic: when requests came, and how long they and their answers were.

Read are the columns of the Azure LLM inference traces (TIMESTAMP, ContextTokens, GeneratedTokens:
github.com/Azure/AzurePublicDataset), of BurstGPT (Timestamp, Request tokens, Response tokens:
github.com/HPMLL/BurstGPT), and plain timestamp, input_tokens, output_tokens.
"""

import csv
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.workload.datasets.files import only_a_file

_COLUMNS = (
    ("timestamp", "contexttokens", "generatedtokens"),
    ("timestamp", "request tokens", "response tokens"),
    ("timestamp", "input_tokens", "output_tokens"),
)
_KEY = "serving.trace"


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
def read_trace(path: Path) -> Trace:
    """Return the trace in a CSV file.

    Raises:
        ConfigurationError: it cannot be read, or a row is none; the message names the line.
    """
    only_a_file(path, _KEY)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows, unanswered = _rows(path, csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            Problem(f"cannot be read: {error}", key=_KEY, found=str(path))
        ) from error
    if not rows:
        raise ConfigurationError(
            Problem("holds no request that was answered", key=_KEY, found=str(path))
        )
    rows.sort(key=lambda row: row[0])
    first_s = rows[0][0]
    return Trace(
        offset_s=np.array([row[0] - first_s for row in rows]),
        input_tokens=np.array([row[1] for row in rows], dtype=np.int64),
        output_tokens=np.array([row[2] for row in rows], dtype=np.int64),
        unanswered=unanswered,
    )


def _rows(path: Path, lines: Iterator[list[str]]) -> tuple[list[tuple[float, int, int]], int]:
    heading = [name.strip().lower() for name in next(lines, [])]
    columns = next((names for names in _COLUMNS if set(names) <= set(heading)), None)
    if columns is None:
        raise ConfigurationError(
            Problem(
                "is no trace: its first line must name TIMESTAMP, ContextTokens, GeneratedTokens "
                "(Azure), or Timestamp, Request tokens, Response tokens (BurstGPT), or timestamp, "
                "input_tokens, output_tokens",
                key=_KEY,
                found=", ".join(heading)[:200],
                file=path,
                line=1,
            )
        )
    places = [heading.index(name) for name in columns]
    rows, unanswered = [], 0
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        try:
            at_s, asked, answered = (line[place] for place in places)
            row = (_seconds(at_s), _tokens(asked), _tokens(answered))
        except (ValueError, IndexError) as error:
            raise ConfigurationError(
                Problem(
                    f"a row that is none: {error}",
                    key=_KEY,
                    found=",".join(line)[:80],
                    file=path,
                    line=number,
                )
            ) from error
        if row[1] == 0 or row[2] == 0:
            unanswered += 1
        else:
            rows.append(row)
    return rows, unanswered


def _tokens(text: str) -> int:
    tokens = int(float(text))
    if tokens < 0:
        raise ValueError("a length below 0")
    return tokens


def _seconds(text: str) -> float:
    """Return a time stamp in seconds: a number, or a date and time."""
    try:
        return float(text)
    except ValueError:
        # Seven decimals, as in the Azure trace of 2023, are one more than datetime takes.
        day, _, fraction = text.strip().partition(".")
        digits = "".join(c for c in fraction if c.isdigit() or c in "+-:")
        zone = next((digits[i:] for i, c in enumerate(digits) if c in "+-"), "")
        decimals = digits[: len(digits) - len(zone)]
        whole = datetime.fromisoformat(day + zone)
        whole = whole if whole.tzinfo else whole.replace(tzinfo=UTC)
        return whole.timestamp() + (float(f"0.{decimals}") if decimals else 0.0)
