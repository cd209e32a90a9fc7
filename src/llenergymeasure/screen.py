"""Text from outside (studies, servers, results) on its way to a file or a terminal."""

import io
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal


def printable(text: str) -> str:
    r"""Return ``text`` with all that steers a terminal or hides in it written out.

    Escape sequences, carriage returns, direction overrides, NUL and the like become ``\u001b``,
    as JSON writes them; lines and tabs stay.
    """
    visible = INVISIBLE.sub(lambda match: _json_escape(match[0]), text)
    if visible.isprintable():
        return visible
    return "".join(_json_escape(char) if _is_control(char) else char for char in visible)


def replace_surrogates(text: str) -> str:
    """Return text with U+FFFD for each half of a character, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]"
    "|(?<![^\x00-\x7f])[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef](?!\u20e3)"
)
"""Characters that count as letters or marks and show nothing: two names that look alike may differ.

Those that choose a form of the character before them count only where that is of ASCII, which has
no forms but that of a key. Source: Unicode, Default_Ignorable_Code_Point, as far as Python takes
them for printable; and the blank of Braille.
"""


def _is_control(char: str) -> bool:
    return not char.isprintable() and char not in "\n\t" and unicodedata.category(char) != "Zs"


def _json_escape(char: str) -> str:
    digits = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{digits[start : start + 4]}" for start in range(0, len(digits), 4))


def say(line: str) -> None:
    """Print a line to standard error at once."""
    print(printable(line), file=sys.stderr, flush=True)


def terminal_width(stream: Any = None) -> int | None:
    """Return how wide the terminal is that standard output, or a stream, goes to; else None."""
    stream = sys.stdout if stream is None else stream
    try:
        return shutil.get_terminal_size().columns if stream.isatty() else None
    except ValueError:  # it is closed
        return None


def wrap_lines(text: str, width: int) -> str:
    """Return text whose lines are broken between words, the rest of each further to the right."""
    lines = []
    for line in text.split("\n"):
        if len(line) <= width:
            lines.append(line)
            continue
        indent = re.match(r" *(?:[-✓✗] )?", line)
        hanging_indent = " " * min(len(indent[0] if indent else "") + 2, width // 2)
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=hanging_indent,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        ) or [""]
    return "\n".join(lines)


_MIN_CHARS = 16
"""Characters of a column that is broken."""

_TIGHT_CHARS = 8
"""Likewise, where columns would be left out or cut."""


def align_columns(
    lines: Sequence[Sequence[str]],
    left: Sequence[int],
    droppable: Sequence[int] = (),
    names: Sequence[int] = (),
    min_chars: int = _MIN_CHARS,
) -> str:
    """Return lines of cells as columns that fit the terminal.

    Args:
        lines: of cells, the header first.
        left: columns that are set to the left, the others to the right; these may be broken.
        droppable: columns to leave out where the terminal is too narrow, the first one first.
        names: columns among the left that are broken only where nothing else helps.
        min_chars: characters that the others among the left keep while there is one to leave out.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = terminal_width() or 1_000_000
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(lines[0]))]
    visible = list(range(len(widths)))
    hidden_names = []

    def min_width(column: int, chars: int) -> int:
        may_break = column in left and (column not in names or chars == 1)
        return min(widths[column], chars) if may_break else widths[column]

    def fits(chars: int) -> bool:
        return sum(min_width(column, chars) for column in visible) + 2 * (len(visible) - 1) <= width

    for column in droppable:
        if fits(min_chars):
            break
        visible.remove(column)
        hidden_names.append(lines[0][column])
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    # Where even the narrowest is too much, a column held wide would push the last one off.
    chars = next(filter(fits, (min_chars, _MIN_CHARS, _TIGHT_CHARS)), 1)
    min_widths = {column: min_width(column, chars) if fits(chars) else 1 for column in visible}
    fitted_widths = _shrink({column: widths[column] for column in visible}, min_widths, width)
    for column in visible:
        justify: Literal["left", "right"] = "left" if column in left else "right"
        table.add_column(overflow="fold", justify=justify, width=fitted_widths[column])
    for line in lines:
        table.add_row(*(Text(line[column]) for column in visible))
    console = Console(file=io.StringIO(), width=min(width, sum(widths) + 2 * len(widths) + 2))
    with console.capture() as capture:
        console.print(table)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines())
    if not hidden_names:
        return text
    return f"{text}\n(left out, as the terminal is too narrow: {', '.join(hidden_names)})"


def _shrink(
    widths: Mapping[int, int], min_widths: Mapping[int, int], width: int
) -> Mapping[int, int]:
    """Return the columns' widths, the widest made narrower until all fit, none below its least.

    Rich takes from the widest whatever its least is, gives that back, and cuts the last column off.
    """
    new_widths = dict(widths)
    excess = sum(new_widths.values()) + 2 * (len(new_widths) - 1) - width
    for _ in range(excess):
        shrinkable = [column for column in new_widths if new_widths[column] > min_widths[column]]
        if not shrinkable:
            break
        new_widths[max(shrinkable, key=new_widths.__getitem__)] -= 1
    return new_widths


class _Screen:
    """A stream to which only printable text goes, wrapped to its terminal."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        width = terminal_width(self.stream)
        return self.write_unwrapped(text if width is None else wrap_lines(text, width))

    def write_unwrapped(self, text: str) -> int:
        written: int = self.stream.write(printable(text))
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def only_printable() -> Iterator[None]:
    """Let nothing but printable text pass to standard output and error, whoever prints."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Screen(out), _Screen(err)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def write_control_sequence(sequence: str) -> None:
    """Write to standard error what is meant to steer a terminal."""
    stream = sys.stderr
    getattr(stream, "stream", stream).write(sequence)
    stream.flush()
