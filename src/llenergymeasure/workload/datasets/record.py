"""One prompt as it is in a data set, before any tokenizer has seen it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.screen import replace_surrogates

TEXT_COLUMNS = ("prompt", "instruction", "text", "input", "question")
"""Columns a prompt is read from, the first that is there. Next to an ``instruction``, ``text`` is
all of it with its answer (Alpaca's)."""

CHAT_COLUMNS = ("messages", "conversations", "conversation", "turns")
"""Columns of chats, read where none of the text columns is there. Of ``turns`` (MT-bench), which
are questions alone, the first is asked."""

WITH_INSTRUCTION = ("input", "context")
"""What an ``instruction`` takes along, in Alpaca's collections and in Dolly."""

UNREAD = (
    *("context", "system", "system_prompt", "instructions"),
    *("history", "tools", "functions", "documents"),
)
"""Columns that are meant to be asked too, and are read nowhere else: they are said, as are those
of texts and chats next to the one that is read."""

ROLE_COLUMNS = ("role", "from")
"""Columns that say who speaks, of a row as of a chat's messages."""

READ_COLUMNS = frozenset((*TEXT_COLUMNS, *CHAT_COLUMNS, *UNREAD, *ROLE_COLUMNS, "source"))
"""All that a row is looked at for."""

MAX_CHARACTERS = 1 << 30
"""Text of a data set beyond which no more of it is read."""

_MAX_PROBLEMS = 10
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot", "ai", "claude"), "assistant"
    ),
    **{name: name for name in ("system", "developer", "tool", "function", "ipython")},
}
"""Names of roles in published collections (ShareGPT, OpenAssistant, LMSYS), as templates know them.
"""


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


class Dataset(list[Record]):
    """The prompts of a data set, in its order.

    Attributes:
        notes: what was left out of it or replaced in it, as sentences.
    """

    def __init__(self, records: Iterable[Record], notes: tuple[str, ...] = ()) -> None:
        super().__init__(records)
        self.notes = notes


class _BadRowError(Exception):
    """A row that holds no usable prompt; says why."""


class _NoQuestionError(Exception):
    """A chat in which nothing is asked, of which published collections hold many; says what."""


class Rows:
    """Gathers records and what is wrong with them, so that all of it can be reported at once."""

    def __init__(self, file: Path | None, name: str) -> None:
        self._file = file
        self._name = name
        self._records: list[Record] = []
        self._problems: list[Problem] = []
        self._left_out: Counter[str] = Counter()
        self._replaced = 0
        self._unread: Counter[str] = Counter()
        self._provenance: list[str] = []
        self._characters = 0

    def problem(self, row: int, message: str) -> None:
        """Note what is wrong in a row.

        Raises:
            ConfigurationError: that was one too many; the rest is not worth reading.
        """
        where = "" if self._file else f"{self._name}: "
        line = row if self._file else None
        self._problems.append(Problem(f"{where}row {row}: {message}", file=self._file, line=line))
        if len(self._problems) >= _MAX_PROBLEMS:
            raise ConfigurationError(self._problems)

    def add(self, row: int, values: Mapping[str, Any]) -> None:
        """Take a row in, or note why not; one of ``_names`` alone says where the rest is from.

        Raises:
            ConfigurationError: too much is wrong, or all texts together are too long.
        """
        if values and all(str(name).startswith("_") for name in values):
            info = (
                f"{str(name).strip('_')} {replace_surrogates(str(value))}"
                for name, value in values.items()
            )
            self._provenance.append(f"{self._name} says of itself: {', '.join(info)}")
            return
        request = values.get("body")
        if isinstance(request, Mapping):  # a line of a file for OpenAI's batch interface
            values = request
        try:
            record = _record(row, values)
        except _BadRowError as error:
            self.problem(row, str(error))
        except _NoQuestionError as error:
            self._left_out[str(error)] += 1
        else:
            self._unread.update(_unread_columns(values))
            cleaned = _clean_record(record)
            self._replaced += cleaned != record
            self._records.append(cleaned)
            self._characters += len(cleaned.text) + sum(len(m["content"]) for m in cleaned.messages)
            if self._characters > MAX_CHARACTERS:
                raise self._error(
                    f"holds more text than is read of a data set, {MAX_CHARACTERS} characters "
                    f"(by row {row}); keep the rows that are to be asked"
                )

    def dataset(self) -> Dataset:
        """Return all prompts.

        Raises:
            ConfigurationError: rows were bad, or there were none.
        """
        if self._problems:
            raise ConfigurationError(self._problems)
        if not self._records:
            raise self._error("; ".join(["holds no prompts", *self._notes()]))
        return Dataset(self._records, self._notes())

    def _error(self, message: str) -> ConfigurationError:
        problem = Problem(message, file=self._file)
        return ConfigurationError(problem if self._file else f"{self._name} {message}")

    def _notes(self) -> tuple[str, ...]:
        notes = self._provenance + [
            f"{count} rows of {self._name} are left out: {why}"
            for why, count in self._left_out.items()
        ]
        notes += [
            f"{count} rows of {self._name} have a column {name} that is no part of their prompts"
            for name, count in self._unread.items()
        ]
        if self._replaced:
            notes.append(
                f"{self._replaced} rows of {self._name} hold halves of characters (lone "
                "surrogates), which stand as U+FFFD in their prompts"
            )
        return tuple(notes)


def _column(values: Mapping[str, Any]) -> str | None:
    """Return the column that a row's prompt is read from; None if it has none."""
    columns = (*TEXT_COLUMNS, *CHAT_COLUMNS)
    present = [name for name in columns if values.get(name) is not None]
    if present[:2] == ["instruction", "text"] and not _has_text(values["instruction"]):
        return "text"
    return present[0] if present else None


def _has_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _unread_columns(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the columns of a row that are meant to be asked, and are not."""
    column = _column(values)
    read = {column, *(WITH_INSTRUCTION if column == "instruction" else ())}
    for name in (*TEXT_COLUMNS, *CHAT_COLUMNS, *UNREAD):
        value = values.get(name)
        # A number is none that could be asked: of some collections ``turns`` says how many.
        if value and not isinstance(value, int | float) and name not in read:
            yield name


def _record(row: int, values: Mapping[str, Any]) -> Record:
    source, column = values.get("source"), _column(values)
    name = source if isinstance(source, str) else ""
    if column in TEXT_COLUMNS:
        if _role(values) == "assistant":
            raise _NoQuestionError(f"{column} is the assistant's own")
        return Record(row, name, text=_prompt_text(column, values))
    if column is not None:
        return Record(row, name, messages=_messages(column, values[column]))
    columns = ", ".join(str(column) for column in values) or "none"
    raise _BadRowError(
        f"no prompt in it; a row needs one of {', '.join(TEXT_COLUMNS + CHAT_COLUMNS)} "
        f"(columns with a value or a name: {columns})"
    )


def _prompt_text(column: str, values: Mapping[str, Any]) -> str:
    extra = WITH_INSTRUCTION if column == "instruction" else ()
    columns = [column, *(name for name in extra if values.get(name) not in (None, ""))]
    return "\n\n".join(_require_text(name, values[name]) for name in columns)


def _require_text(column: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _BadRowError(f"{column} should be text, not {type(value).__name__}")
    if not value.strip():
        raise _BadRowError(f"{column} is empty")
    return value


def _messages(column: str, value: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise _BadRowError(f"{column} should be a list of messages, not {type(value).__name__}")
    if column == "turns":
        value = [{"role": "user", "content": item} for item in list(value)[:1]]
    items = list(value)
    if not items:
        raise _NoQuestionError(f"{column} is empty")
    # The answer is what the model under test shall write.
    while items and _role(items[-1]) == "assistant":
        items.pop()
    if any(map(_has_tool_call, items)):
        raise _NoQuestionError(f"{column} holds calls of tools, which are not sent")
    messages = tuple(_message(column, item) for item in items)
    if not messages or messages[-1]["role"] in ("system", "developer"):
        raise _NoQuestionError(f"{column} asks nothing")
    if not messages[-1]["content"].strip():
        raise _NoQuestionError(f"{column} ends with an empty question")
    return messages


def _role(item: Any) -> str | None:
    values = (item.get(name) for name in ROLE_COLUMNS) if isinstance(item, Mapping) else ()
    role = next(filter(None, values), None)
    return _ROLES.get(role.lower()) if isinstance(role, str) else None


def _has_tool_call(item: Any) -> bool:
    calls = [item.get("tool_calls"), item.get("function_call")] if isinstance(item, Mapping) else []
    return any(map(_is_tool_call, calls))


def _is_tool_call(call: Any) -> bool:
    if isinstance(call, str):  # JSON as text
        return "".join(call.split()).startswith(('[{"', '{"'))
    values = call.values() if isinstance(call, Mapping) else call
    return isinstance(values, Iterable) and any(values)


def _message(column: str, item: Any) -> Mapping[str, str]:
    if not isinstance(item, Mapping):
        raise _BadRowError(f"a message in {column} should be a mapping, not {type(item).__name__}")
    role = item.get("role") or item.get("from")
    content = _join_parts(item.get("value") if item.get("content") is None else item["content"])
    if not isinstance(role, str) or not isinstance(content, str):
        raise _BadRowError(f"a message in {column} needs a role and a content, both text")
    known_role = _role(item)
    if known_role is None:
        raise _BadRowError(
            f"a message in {column} has the role {role[:40]!r}; known are {', '.join(_ROLES)}"
        )
    return {"role": known_role, "content": content}


def _join_parts(content: Any) -> Any:
    """Return the text of a message whose content is in parts, as OpenAI's may be; else as it is."""
    if not isinstance(content, list | tuple) or not content:
        return content
    parts: list[Any] = [part.get("text") if isinstance(part, Mapping) else 0 for part in content]
    return "\n".join(parts) if all(isinstance(part, str) for part in parts) else content


def _clean_record(record: Record) -> Record:
    """Return a record as UTF-8 can hold it."""
    messages = tuple(
        {name: replace_surrogates(value) for name, value in message.items()}
        for message in record.messages
    )
    return Record(record.row, record.source, replace_surrogates(record.text), messages)
