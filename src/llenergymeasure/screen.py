"""Text from outside (studies, servers, results) on its way to a file or a terminal."""

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printable(text: str) -> str:
    r"""Return ``text`` with all that steers a terminal or hides in it written out.

    Escape sequences, carriage returns, direction overrides, NUL and the like become ``\u001b``,
    as JSON writes them; lines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(sign) if _steers(sign) else sign for sign in text)


def clean(text: str) -> str:
    """Return text with U+FFFD for each half of a character, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _steers(sign: str) -> bool:
    return not sign.isprintable() and sign not in "\n\t" and unicodedata.category(sign) != "Zs"


def _escaped(sign: str) -> str:
    pairs = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{pairs[at : at + 4]}" for at in range(0, len(pairs), 4))


def say(line: str) -> None:
    """Print a line to standard error at once."""
    print(printable(line), file=sys.stderr, flush=True)


class _Screen:
    """A stream to which only printable text goes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
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
