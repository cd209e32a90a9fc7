"""More requests under way than files may be open: the limit is raised, or it is said."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.serving import client
from llenergymeasure.run.preflight import checks
from support.serving_runs import experiment
from support.studies import ROOT

RUN = """
import json, resource, sys
from pathlib import Path

soft, hard, users = map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from llenergymeasure.run.result.run_validity import traffic_codes
from support.serving_runs import experiment, record, run

serving = {"arrivals": "closed", "concurrency": users}
config = experiment(serving, window_s=1.5, max_output_tokens=4)  # a refused user asks each second
served, _ = run(Path(sys.argv[1]), config, "--first-ms", "800", "--next-ms", "5")
import pandas  # It is first needed when a run ends.
told = record(served)
print(json.dumps([told.in_flight_max, told.failures, traffic_codes(served)]))
"""


def outcome(folder: Path, *limits: int) -> list[Any]:
    """What a run says whose process may open so many files, now and at most."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < limits[1]:
        pytest.skip(f"this process may not open {limits[1]} files")
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(folder), *map(str, limits)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    said: list[Any] = json.loads(result.stdout.splitlines()[-1])
    return said


def test_the_limit_is_raised_before_connecting(tmp_path: Path) -> None:
    most, failures, codes = outcome(tmp_path, 256, 4096, 300)
    assert (most, failures) == (300, {})
    assert "failed_requests" not in codes


def test_where_it_cannot_be_raised_enough_the_run_ends_and_says_so(tmp_path: Path) -> None:
    _, failures, codes = outcome(tmp_path, 160, 192, 100)
    assert set(failures) == {"refused"}
    # 36 users wait a second after each refusal, and none goes on asking without a pause.
    assert 36 <= failures["refused"] < 10 * 36
    assert "as many are open as this process may open files" in codes["failed_requests"]


@pytest.mark.parametrize(("most", "said"), [(1000, False), (999, True)])
def test_users_beyond_it_are_said_before_the_run(
    monkeypatch: pytest.MonkeyPatch, most: int, said: bool
) -> None:
    monkeypatch.setattr(client, "connections_allowed", lambda: most)
    config = experiment({"arrivals": "closed", "concurrency": 1000}, backend="pytorch")
    problems = list(checks.check_server(config, registry.get("pytorch")))
    assert any("999 connections" in str(problem) for problem in problems) == said
    assert not any(problem.fatal for problem in problems)
