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
    shown = UNSEEN.sub(lambda found: _escaped(found[0]), text)
    if shown.isprintable():
        return shown
    return "".join(_escaped(sign) if _steers(sign) else sign for sign in shown)


def clean(text: str) -> str:
    """Return text with U+FFFD for each half of a character, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]"
    "|(?<![^\x00-\x7f])[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef](?!\u20e3)"
)
"""Signs that count as letters or marks and show nothing: two names that look alike may differ.

Those that choose a form of the sign before them count only where that is of ASCII, which has no
forms but that of a key. Source: Unicode, Default_Ignorable_Code_Point, as far as Python takes them
for printable; and the blank of Braille.
"""


def _steers(sign: str) -> bool:
    return not sign.isprintable() and sign not in "\n\t" and unicodedata.category(sign) != "Zs"


def _escaped(sign: str) -> str:
    pairs = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{pairs[at : at + 4]}" for at in range(0, len(pairs), 4))


def say(line: str) -> None:
    """Print a line to standard error at once."""
    print(printable(line), file=sys.stderr, flush=True)


def columns(stream: Any = None) -> int | None:
    """Return how wide the terminal is that standard output, or a stream, goes to; else None."""
    stream = sys.stdout if stream is None else stream
    try:
        return shutil.get_terminal_size().columns if stream.isatty() else None
    except ValueError:  # it is closed
        return None


def wrapped(text: str, width: int) -> str:
    """Return text whose lines are broken between words, the rest of each further to the right."""
    lines = []
    for line in text.split("\n"):
        if len(line) <= width:
            lines.append(line)
            continue
        indent = re.match(r" *(?:[-✓✗] )?", line)
        hanging = " " * min(len(indent[0] if indent else "") + 2, width // 2)
        lines += textwrap.wrap(
            line,
            width,
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        ) or [""]
    return "\n".join(lines)


_LEAST = 16
"""Signs of a column that is broken."""

_NARROWEST = 8
"""Likewise, where columns would be left out or cut."""


def aligned(
    lines: Sequence[Sequence[str]],
    left: Sequence[int],
    spare: Sequence[int] = (),
    names: Sequence[int] = (),
    unbroken: int = _LEAST,
) -> str:
    """Return lines of cells as columns that fit the terminal.

    Args:
        lines: of cells, the header first.
        left: columns that are set to the left, the others to the right; these may be broken.
        spare: columns to leave out where the terminal is too narrow, the first one first.
        names: columns among the left that are broken only where nothing else helps.
        unbroken: signs that the others among the left keep, as long as there is one to leave out.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = columns() or 1_000_000
    widest = [max(cell_len(line[place]) for line in lines) for place in range(len(lines[0]))]
    kept = list(range(len(widest)))
    hidden = []

    def least(place: int, broken: int) -> int:
        may_break = place in left and (place not in names or broken == 1)
        return min(widest[place], broken) if may_break else widest[place]

    def fits(broken: int) -> bool:
        return sum(least(place, broken) for place in kept) + 2 * (len(kept) - 1) <= width

    for place in spare:
        if fits(unbroken):
            break
        kept.remove(place)
        hidden.append(lines[0][place])
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    # Where even the narrowest is too much, a column held wide would push the last one off.
    broken = next(filter(fits, (unbroken, _LEAST, _NARROWEST)), 1)
    leasts = {place: least(place, broken) if fits(broken) else 1 for place in kept}
    fitted = _narrowed({place: widest[place] for place in kept}, leasts, width)
    for place in kept:
        justify: Literal["left", "right"] = "left" if place in left else "right"
        table.add_column(overflow="fold", justify=justify, width=fitted[place])
    for line in lines:
        table.add_row(*(Text(line[place]) for place in kept))
    console = Console(file=io.StringIO(), width=min(width, sum(widest) + 2 * len(widest) + 2))
    with console.capture() as capture:
        console.print(table)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines())
    return (
        f"{text}\n(left out, as the terminal is too narrow: {', '.join(hidden)})"
        if hidden
        else text
    )


def _narrowed(
    widths: Mapping[int, int], leasts: Mapping[int, int], width: int
) -> Mapping[int, int]:
    """Return the columns' widths, the widest made narrower until all fit, none below its least.

    Rich takes from the widest whatever its least is, gives that back, and cuts the last column off.
    """
    fitted = dict(widths)
    too_wide = sum(fitted.values()) + 2 * (len(fitted) - 1) - width
    for _ in range(too_wide):
        wider = [place for place in fitted if fitted[place] > leasts[place]]
        if not wider:
            break
        fitted[max(wider, key=fitted.__getitem__)] -= 1
    return fitted


class _Screen:
    """A stream to which only printable text goes, wrapped to its terminal."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        width = columns(self.stream)
        return self.unwrapped(text if width is None else wrapped(text, width))

    def unwrapped(self, text: str) -> int:
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


def steer(sequence: str) -> None:
    """Write to standard error what is meant to steer a terminal."""
    stream = sys.stderr
    getattr(stream, "stream", stream).write(sequence)
    stream.flush()
