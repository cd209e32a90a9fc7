"""A run's supervisor that holds limits on the simulated card, to be killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from machine.conftest import UUID, read_back
from support.users import kept_running

AS_FOUND = (400.0, 1980)
HELD = (250.0, 1200)

SUPERVISOR = """
import sys
from llenergymeasure.machine.gpus.nvml_limits import Limits
from llenergymeasure.machine.gpus.limits import set_limits
from llenergymeasure.machine.gpus.locks import lock_gpus
locks = lock_gpus(sys.argv[1:], "run a", wait_s=0)
set_limits(locks, Limits(250, 1200))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another(environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds limits as a run's supervisor does."""
    with kept_running([sys.executable, "-c", SUPERVISOR, UUID], "held", environment) as process:
        assert read_back(environment) == HELD
        yield process


def killed_while_holding(environment: dict[str, str]) -> None:
    """Have a supervisor hold limits and be killed."""
    with held_by_another(environment) as process:
        process.kill()
        process.wait()
    assert read_back(environment) == HELD
