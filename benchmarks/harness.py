"""What the benchmarks share: arguments, where they ran, what must hold, the card, single runs.

Imported first: it makes the tests' stand-ins importable. A benchmark ends with 1 where something
that must hold does not. Where it ran, and at which commit, goes to standard error.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from llenergymeasure.plan import make_plan
from llenergymeasure.run.measure_script import read_spec
from llenergymeasure.workload.load_study import study_from_mapping

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
    values = options.parse_args(arguments)
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    print(
        f"commit {commit or 'unknown'}, {platform.machine()}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
        file=sys.stderr,
        flush=True,
    )
    return values


def card_library() -> Path:
    """Return the simulated card's library; end with 1 and the reason where there is none."""
    from nvml_sim import sim

    library, reason = sim.library_or_reason()
    if library is None:
        sys.exit(f"no simulated card: {reason}")
    return library


def report_criteria(criteria: Iterable[Criterion]) -> int:
    """Print what must hold; return the exit code, 1 if something does not."""
    code = 0
    for is_met, text in criteria:
        print(f"{'pass' if is_met else 'FAIL'}  {text}")
        code |= not is_met
    return code


def word_counts(words: Iterable[str]) -> str:
    """Return how often each word occurs, the most frequent first."""
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common())


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return each figure's median over the rows; a row that has it not counts as 0."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.median(row.get(name, 0.0) for row in rows) for name in names}


class TimedRun(NamedTuple):
    """One run: its record, and the process that made it.

    Attributes:
        result: the record.
        began_s: when the process was started (CLOCK_MONOTONIC).
        wall_s: how long it took.
    """

    result: dict[str, Any]
    began_s: float
    wall_s: float


def run_once(settings: Mapping[str, Any]) -> TimedRun:
    """Make the first run of a study with these settings, without a workflow around it.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    plan = make_plan(study_from_mapping({"name": "benchmark", **settings}))
    run = plan.runs[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plan.json").write_bytes(plan.to_json_bytes())
        spec = read_spec(folder / "plan.json", f"{run.experiment}/{run.cycle}")
        (folder / "spec.json").write_text(json.dumps({**spec, "gap_s": 0.0}))
        script = ROOT / "scripts" / f"measure_{spec['backend']}.py"
        arguments = ["--spec", str(folder / "spec.json"), "--out", str(folder / "run")]
        began_s = time.monotonic()
        result = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False
        )
        wall_s = time.monotonic() - began_s
        if result.returncode != 0:
            raise RuntimeError(result.stderr)
        return TimedRun(json.loads((folder / "run" / "result.json").read_text()), began_s, wall_s)
