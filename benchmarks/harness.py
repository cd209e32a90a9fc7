"""What the benchmarks share: arguments, where they ran, what must hold, the card.

Imported first: it makes the tests' stand-ins importable. A benchmark ends with 1 where something
that must hold does not. Where it ran, and at which commit, goes to standard error.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

Criterion = tuple[bool, str]
"""Whether something that must hold does, and its figures."""


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser of a benchmark's arguments; its help is the module's text as it stands."""
    return argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def begin(
    options: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Return the arguments' values, and say on standard error where this runs."""
    found = options.parse_args(arguments)
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    print(
        f"commit {commit or 'unknown'}, {platform.machine()}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
        file=sys.stderr,
        flush=True,
    )
    return found


def card_library() -> Path:
    """Return the simulated card's library; end with 1 and the reason where there is none."""
    from nvml_sim import sim

    library, reason = sim.library_or_reason()
    if library is None:
        sys.exit(f"no simulated card: {reason}")
    return library


def told(criteria: Iterable[Criterion]) -> int:
    """Print what must hold; return the exit code, 1 if something does not."""
    code = 0
    for holds, text in criteria:
        print(f"{'pass' if holds else 'FAIL'}  {text}")
        code |= not holds
    return code


def counted(words: Iterable[str]) -> str:
    """Return how often each word occurs, the most frequent first."""
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common())
