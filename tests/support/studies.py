"""Small real studies for tests, and the commands that run them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "tiny-llama",
    "n": 2,
    "dataset": "synthetic",
    "max_input_tokens": 8,
    "max_output_tokens": 4,
    "protocol": "quick",
    "window": {"min_seconds": 0.2},
    "warmup": {"enabled": False},
    "execution": {"n_cycles": 1, "cycle_order": "sequential"},
}
"""A study whose runs take little more than the engine's import."""

MAIN = "from llenergymeasure.cli import main; main()"
"""``llem``, as code."""

_SERVER = str(Path(__file__).with_name("serving_server.py"))
SERVED: dict[str, Any] = {
    "backend": "openai",
    "openai": {"command": [sys.executable, _SERVER, "--port", "{port}"]},
}
"""Settings of runs without an engine's import: each starts a small server and asks that.

For tests of what surrounds a run: such a run takes a third of the work of one that loads torch.
"""


def write_study(folder: Path, **settings: Any) -> Path:
    """Write a small study with ``settings`` over its own; return its path."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **settings}, sort_keys=False))
    return path


def environment(**variables: str) -> dict[str, str]:
    """Return the environment for a child: offline, one thread, none of the tests' own settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LLEM_")}
    cache = {"LLEM_CACHE": os.environ["LLEM_CACHE"]} if "LLEM_CACHE" in os.environ else {}
    return {**kept, **cache, "HF_HUB_OFFLINE": "1", **variables}


def snakemake(
    folder: Path,
    *arguments: str,
    snakefile: Path = ROOT / "Snakefile",
    variables: Mapping[str, str] | None = None,
    timeout_s: float = 480,
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in ``folder`` and return what it said."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *arguments]
    return _run(command, folder, variables or {}, timeout_s)


def llem(
    folder: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = 480,
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    """Run ``llem`` in ``folder`` and return what it said."""
    return _run([python, "-c", MAIN, *arguments], folder, variables or {}, timeout_s)


def _run(
    command: list[str], folder: Path, variables: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_llem(
    folder: Path, *arguments: str, log: Any = subprocess.DEVNULL, **variables: str
) -> "subprocess.Popen[bytes]":
    """Start ``llem`` in ``folder``, in a session of its own."""
    return _start([sys.executable, "-c", MAIN, *arguments], folder, log, variables)


def start_snakemake(
    folder: Path, *arguments: str, log: Any = subprocess.DEVNULL, **variables: str
) -> "subprocess.Popen[bytes]":
    """Start Snakemake in ``folder``, in a session of its own."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments]
    return _start(words, folder, log, variables)


def _start(
    words: list[str], folder: Path, log: Any, variables: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def plan_of(folder: Path, study: str = "small") -> dict[str, Any]:
    """Return the plan that the workflow wrote."""
    plan: dict[str, Any] = json.loads((folder / "results" / study / "plan.json").read_text())
    return plan


def result_times(folder: Path, study: str = "small") -> dict[str, int]:
    """Return the modification time of every finished run's record, by ``experiment/cycle``."""
    runs = folder / "results" / study / "runs"
    return {
        f"{path.parent.parent.name}/{path.parent.name}": path.stat().st_mtime_ns
        for path in runs.glob("*/*/result.json")
    }


def wait_for(
    condition: Callable[[], object], limit_s: float = 240, describe: Callable[[], str] = str
) -> None:
    """Wait until a condition holds, and fail with what ``describe`` says where it never does."""
    deadline, pause_s = time.monotonic() + limit_s, 0.02
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {describe()}"
        time.sleep(pause_s)
        pause_s = min(0.1, 1.1 * pause_s)  # a look through all processes is some work


def measuring(run: Path) -> bool:
    """Return whether a run has come to its window."""
    marks = run / "work" / "marks.jsonl"
    return marks.is_file() and '"measure"' in marks.read_text()


def required_path(variable: str, default: str, remedy: str) -> Path:
    """Return what a variable names, else what stands in ``build``; skip the test without it."""
    path = Path(os.environ.get(variable) or ROOT / "build" / default)
    if not path.exists():
        pytest.skip(f"no {remedy}, or {variable} names it")
    return path.absolute()


def living(word: str) -> list[int]:
    """Return the processes whose command line holds ``word``."""
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if word in command and state != "Z":
            pids.append(int(entry.name))
    return pids
