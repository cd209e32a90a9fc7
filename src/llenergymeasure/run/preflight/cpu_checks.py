"""Whether others use the CPUs before a run begins."""

import time
from collections.abc import Iterator

from llenergymeasure.errors import Problem
from llenergymeasure.sensors.base import SensorError
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import OTHERS_MAX, HostCpu

LEAST_S = 0.5
"""Shorter looks say little: the kernel counts in ticks of 10 ms."""
NAMED = 3


class CpuWatch:
    """Looks at the CPUs while the rest of the preflight is made."""

    def __init__(self, host: HostCpu) -> None:
        """Take what reads the CPUs, and look a first time."""
        self._host = host
        self._began_s = time.monotonic()
        self._before = self._look()

    @classmethod
    def of_run(cls, run_pid: int) -> "CpuWatch":
        """Return one for the run whose process tree has this root."""
        return cls(HostCpu(RunProcesses(run_pid)))

    def warnings(self) -> Iterator[Problem]:
        """Yield what others use, if that is more than leaves a run as it is alone."""
        time.sleep(max(0.0, LEAST_S - (time.monotonic() - self._began_s)))
        after = self._look()
        if self._before is None or after is None:
            return
        (totals_before, each_before), (totals, each) = self._before, after
        rose = {name: totals[name] - totals_before[name] for name in totals_before}
        used_s = rose["cpu_busy_s"] - rose["cpu_own_s"]
        share = used_s / rose["cpu_total_s"] if rose["cpu_total_s"] else 0.0
        if share <= OTHERS_MAX:
            return
        took = {pid: each[pid] - each_before.get(pid, 0.0) for pid in each}
        most = sorted(took, key=lambda pid: took[pid], reverse=True)[:NAMED]
        names = [f"{self._host.name(pid)} (pid {pid})" for pid in most if took[pid] > 0]
        who = f": {', '.join(names)}" if names else ""
        yield Problem(
            f"at the start other processes used {share:.0%} of the CPUs{who}; beyond "
            f"{OTHERS_MAX:.0%} a run gets slower and costs more than it would alone: end them "
            "or wait",
            fatal=False,
        )

    def _look(self) -> tuple[dict[str, float], dict[int, float]] | None:
        try:
            totals = self._host.totals()
        except SensorError:
            return None
        counts = {each.quantity: each.value for each in totals if each.value is not None}
        return {str(name): value for name, value in counts.items()}, self._host.others()
