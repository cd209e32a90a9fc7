"""The simulated card as fixtures: a trace in, a process that reads it out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from nvml_sim import sim
from nvml_sim.reader import Reader
from support.forks import run_forked

OpenReader = Callable[..., Reader]


@pytest.fixture(autouse=True, scope="session")
def built(library: Path) -> None:
    """Without a compiler these tests are skipped."""


@pytest.fixture
def clock(tmp_path: Path) -> sim.SteppedClock:
    """A clock that stands still until the test moves it."""
    return sim.SteppedClock(tmp_path / "clock", start_ns=5 * sim.NS_PER_S)


@pytest.fixture
def open_reader(tmp_path: Path, clock: sim.SteppedClock) -> Iterator[OpenReader]:
    """Opens readers of a trace (or of one card) that see the stepped clock; closes them."""
    with contextlib.ExitStack() as stack:

        def opened(what: sim.Trace | sim.Device | Path, **settings: Any) -> Reader:
            if isinstance(what, sim.Device):
                what = sim.Trace([what])
            path = what if isinstance(what, Path) else what.write(tmp_path)
            settings.setdefault("clock", clock)
            return stack.enter_context(Reader(sim.environment(path, **settings)))

        yield opened


def run_code(code: str, variables: Mapping[str, str]) -> CompletedProcess[str]:
    """Run code that knows nvidia-ml-py as ``n``, in a process of its own."""
    return run_forked(f"import pynvml as n\n{code}", variables, modules=("pynvml",))
