"""One figure that does not match, and the comparing of nested values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RELATIVE = 1e-9
"""Two computations of one figure differ by less on any processor."""


@dataclass(frozen=True)
class Difference:
    """A figure that is not what its sources give.

    Attributes:
        file: where it stands.
        figure: which one, as a dotted path; the file as a whole if empty.
        recorded: what is there.
        recomputed: what its sources give.
        what: in words, where no two values say it.
    """

    file: Path
    figure: str = ""
    recorded: Any = None
    recomputed: Any = None
    what: str | None = None

    def __str__(self) -> str:
        """Return it as a line for people."""
        place = f"{self.file}: {self.figure}" if self.figure else str(self.file)
        return f"{place}: {self.what or f'{self.recorded!r}, recomputed {self.recomputed!r}'}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "file": str(self.file),
            "figure": self.figure or None,
            "recorded": self.recorded,
            "recomputed": self.recomputed,
            "what": self.what,
        }


def differences(
    file: Path, recorded: Any, recomputed: Any, figure: str = ""
) -> Iterator[Difference]:
    """Yield every leaf in which two nested values differ; numbers by :data:`RELATIVE`."""
    if isinstance(recorded, Mapping) and isinstance(recomputed, Mapping):
        for key in dict.fromkeys([*recorded, *recomputed]):
            inner = f"{figure}.{key}" if figure else str(key)
            yield from differences(file, recorded.get(key), recomputed.get(key), inner)
    elif _list(recorded) and _list(recomputed) and len(recorded) == len(recomputed):
        for number, pair in enumerate(zip(recorded, recomputed, strict=True)):
            yield from differences(file, *pair, f"{figure}[{number}]")
    elif not _same(recorded, recomputed):
        yield Difference(file, figure, recorded, recomputed)


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        try:
            return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-12) or (
                math.isnan(one) and math.isnan(other)
            )
        except TypeError:
            return False
    return bool(one == other)
