"""A clock that goes on when somebody sleeps, and at no other time."""

import time
from typing import Any


class Clock:
    """Stands for the module ``time``."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return round(self.now_s * 1e9)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
