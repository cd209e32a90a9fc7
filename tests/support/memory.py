"""How much memory a block of a test takes, by the kernel's own account."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    """The most that this process had beyond what it had before the block."""

    grown_bytes: int = 0


@contextmanager
def memory_peak() -> Iterator[Peak]:
    """Measure until the block ends; the peak begins anew (proc_pid_clear_refs(5))."""
    peak = Peak()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes()
    yield peak
    peak.grown_bytes = _bytes("VmHWM") - before


def resident_bytes() -> int:
    """How much memory this process has."""
    return _bytes("VmRSS")


def _bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
