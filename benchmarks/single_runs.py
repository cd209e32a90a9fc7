"""Single runs without a workflow around them, for the benchmarks."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llenergymeasure.plan import make_plan
from llenergymeasure.run.worker import read_spec
from llenergymeasure.workload.load_study import study_from_mapping

ROOT = Path(__file__).resolve().parents[1]


def make_spec(settings: Mapping[str, Any], gap_s: float = 0.0) -> dict[str, Any]:
    """Return the spec of the first run of a study with these settings, with a rest before it."""
    plan = make_plan(study_from_mapping({"name": "benchmark", **settings}))
    run = plan.runs[0]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "plan.json"
        path.write_bytes(plan.to_json_bytes())
        return {**read_spec(path, f"{run.experiment}/{run.cycle}"), "gap_s": gap_s}


def run_spec(spec: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make one run in ``folder`` and return its record.

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
