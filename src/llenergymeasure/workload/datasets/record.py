"""One prompt as it stands in a data set, before any tokenizer has seen it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem

TEXT_COLUMNS = ("prompt", "text", "instruction", "input", "question")
"""Columns a prompt is read from, the first that is there. ``instruction`` takes ``input`` along."""

CHAT_COLUMNS = ("messages", "conversations")
"""Columns of chats, read where none of the text columns is there."""

_MOST_PROBLEMS = 10
_ROLES = {"human": "user", "gpt": "assistant"}
"""ShareGPT's names of the roles, and those that chat templates know."""


@dataclass(frozen=True)
class Record:
    """A prompt: a text, or the messages of a chat.

    Attributes:
        row: its row in the data set, counted from 1.
        source: the collection it was drawn from (column ``source``); empty if there is none.
        text: the prompt.
        messages: a chat's ``{"role", "content"}`` mappings; empty for a plain prompt.
    """

    row: int
    source: str
    text: str = ""
    messages: tuple[Mapping[str, str], ...] = ()


class _BadRowError(Exception):
    """A row that holds no usable prompt; says why."""


class Rows:
    """Gathers records and what is wrong with them, so that all of it can be told at once."""

    def __init__(self, file: Path | None, name: str) -> None:
        self._file = file
        self._name = name
        self._records: list[Record] = []
        self._problems: list[Problem] = []

    def problem(self, row: int, message: str) -> None:
        """Note what is wrong in a row.

        Raises:
            ConfigurationError: that was one too many; the rest is not worth reading.
        """
        where = "" if self._file else f"{self._name}: "
        line = row if self._file else None
        self._problems.append(Problem(f"{where}row {row}: {message}", file=self._file, line=line))
        if len(self._problems) >= _MOST_PROBLEMS:
            raise ConfigurationError(self._problems)

    def add(self, row: int, values: Mapping[str, Any], place: int | None = None) -> None:
        """Take a row in, or note why not.

        Args:
            row: counted from 1.
            values: its columns.
            place: the row's line in the file, where that differs.
        """
        try:
            self._records.append(_record(row, values))
        except _BadRowError as error:
            self.problem(place or row, str(error))

    def records(self) -> list[Record]:
        """Return all records.

        Raises:
            ConfigurationError: rows were bad, or there were none.
        """
        if self._problems:
            raise ConfigurationError(self._problems)
        if not self._records:
            problem = Problem("holds no prompts", file=self._file, key=None)
            raise ConfigurationError(problem if self._file else f"{self._name} holds no prompts")
        return self._records


def _record(row: int, values: Mapping[str, Any]) -> Record:
    source = values.get("source")
    name = source if isinstance(source, str) else ""
    for column in TEXT_COLUMNS:
        if values.get(column) is None:
            continue
        return Record(row, name, text=_text(column, values))
    for column in CHAT_COLUMNS:
        if values.get(column) is None:
            continue
        return Record(row, name, messages=_messages(column, values[column]))
    columns = ", ".join(str(column) for column in values) or "none"
    raise _BadRowError(
        f"no prompt in it; a row needs one of {', '.join(TEXT_COLUMNS + CHAT_COLUMNS)} "
        f"(columns with a value or a name: {columns})"
    )


def _text(column: str, values: Mapping[str, Any]) -> str:
    text = _string(column, values[column])
    context = values.get("input")
    if column != "instruction" or context is None or context == "":
        return text
    return f"{text}\n\n{_string('input', context)}"


def _string(column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _BadRowError(f"{column} should be text, not {type(value).__name__}")
    if not value.strip():
        raise _BadRowError(f"{column} is empty")
    return value


def _messages(column: str, value: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise _BadRowError(f"{column} should be a list of messages, not {type(value).__name__}")
    messages = tuple(_message(column, item) for item in value)
    if not messages:
        raise _BadRowError(f"{column} is empty")
    # The answer is what the model under test shall write.
    while len(messages) > 1 and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return messages


def _message(column: str, item: Any) -> Mapping[str, str]:
    if not isinstance(item, Mapping):
        raise _BadRowError(f"a message in {column} should be a mapping, not {type(item).__name__}")
    role = item.get("role", item.get("from"))
    content = item.get("content", item.get("value"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise _BadRowError(f"a message in {column} needs a role and a content, both text")
    return {"role": _ROLES.get(role, role), "content": content}
