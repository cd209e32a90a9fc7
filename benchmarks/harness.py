"""What the benchmarks share: arguments, where they ran, what must hold, the card, single runs.

Imported first: it makes the tests' stand-ins importable. A benchmark ends with 1 where something
that must hold does not. Where it ran, and at which commit, goes to standard error.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from llenergymeasure.plan import make_plan
from llenergymeasure.run.worker import read_spec
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


def make_spec(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec of the first run of a study with these settings."""
    plan = make_plan(study_from_mapping({"name": "benchmark", **settings}))
    run = plan.runs[0]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "plan.json"
        path.write_bytes(plan.to_json_bytes())
        return {**read_spec(path, f"{run.experiment}/{run.cycle}"), "gap_s": 0.0}


def run_spec(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make one run in ``folder``, without a workflow around it, and return its record.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    script = ROOT / "scripts" / f"measure_{spec['backend']}.py"
    done = subprocess.run(
        [sys.executable, str(script), "--spec", str(path), "--out", str(folder / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    return result
