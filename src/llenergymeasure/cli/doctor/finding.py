"""One thing that was looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "absent", "wrong"]
"""It works; it is not here, which may be as it should; it is here or needed, and does not work."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: whether it works.
        detail: what was seen.
        remedy: what would make it work; null where nothing has to be done.
    """

    name: str
    state: State
    detail: str
    remedy: str | None = None
