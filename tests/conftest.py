"""What holds for all tests: a cache of their own, and in CI no test may be skipped."""

import os
import re
import shutil
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from cli.commands import Call, called
from nvml_sim import sim
from report.browser import Browser

# A machine that does other work too is slow now and then; that is no fault of a test's.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

os.environ.setdefault(
    "LLEM_CACHE", str(Path(__file__).resolve().parents[1] / "build" / "test-cache")
)


@pytest.fixture(scope="session")
def library() -> Path:
    """The simulated card's library, built; without a compiler its tests are skipped."""
    return sim.library_or_skip()


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Call ``llem`` in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return partial(called, monkeypatch, capsys)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium without a screen; where there is none its tests are skipped."""
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        pytest.skip("no chromium: apt install chromium")
    with Browser() as opened:
        yield opened


LONGEST = (
    "test_commands.py",
    "test_fault_study.py",
    "test_resume.py",
    "test_study_on_slurm.py",
    "test_verify.py",
    "test_meter_command.py",
    "test_pytorch_generation.py",
    "test_preflight.py",
    "test_page.py",
)
"""Files to begin with where several processes share the tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


class _ByFile(LoadScopeScheduling):
    """Keep a file in one process, but for the documentation's pages, which share nothing.

    What needs a Docker daemon is kept in one process too: each daemon takes minutes to be given
    an image of two gigabytes.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path == "tests/docs/test_commands.py":
            return nodeid
        docker = r"tests/containers/.*(docker|daemon)"
        return "docker" if re.match(docker, nodeid, re.IGNORECASE) else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped in CI: it installs every part that a test can need, except a GPU."""
    report = yield
    in_ci = os.environ.get("CI", "").lower() in {"1", "true"}
    if in_ci and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if "GPU" not in str(reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: in CI nothing may be missing: {reason}"
    return report
