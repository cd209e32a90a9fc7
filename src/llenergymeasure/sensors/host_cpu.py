"""What the CPUs did for the run and for others, and whether a process of the run stands still.

Others' time is the CPUs' busy time less that of the run's own processes. Everything here counts
up, as the kernel does: a window's share is a difference of two moments. Rows are the host's:

- ``cpu_total_s``, ``cpu_busy_s``, ``cpu_steal_s``: time of the CPUs that the run may use, of it in
  use (user, nice, system; interrupts belong to nobody) and taken by the hypervisor (/proc/stat).
- ``machine_total_s``, ``machine_busy_s``: the same of all CPUs of the machine.
- ``cpu_own_s``: CPU time of the run's processes, of those that ended too.
- ``cpu_pressure_s``: how long something waited for a CPU (PSI, "some").
- ``quota_periods``, ``quota_throttled``: periods of the control groups that limit the run's CPU
  time, and those in which they held it back.
- ``stopped_pid``: a process of the run that is stopped (state T), its name in the note.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from llenergymeasure.machine.host import read_text
from llenergymeasure.processes import descendant_pids, pids, stat_fields
from llenergymeasure.sensors.base import Channel, Every, SensorError, Value
from llenergymeasure.sensors.foreign_processes import RunProcesses

TOTALS_S = 1.0
STOPS_S = 0.2
"""How often to look for a stopped process: a stop of half a second is met twice."""

OTHERS_MAX = 0.05
"""Largest part of the CPUs' time, of those that the run may use, that strangers or the hypervisor
may take; and of a quota's periods that may be throttled. See docs/method.md, section 7."""

_PF_KTHREAD = 0x00200000
"""Of the flags in /proc/PID/stat (include/linux/sched.h)."""
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_BUSY_FIELDS = 3
"""The first fields of a line of /proc/stat: user, nice, system."""
_COUNTED_FIELDS = 8
"""Its fields up to steal time: guests' time is in user and nice already."""
_STEAL_FIELD = 7


class HostCpu:
    """Reads the CPUs and the run's processes."""

    def __init__(
        self,
        run: RunProcesses,
        proc: Path = Path("/proc"),
        cgroups: Path = Path("/sys/fs/cgroup"),
        cpus: Collection[int] | None = None,
    ) -> None:
        """Take whose processes are the run's."""
        self._run, self._proc, self._cgroups = run, proc, cgroups
        self._cpus = {f"cpu{number}" for number in cpus or os.sched_getaffinity(0)}
        self._roots: set[int] = set()
        self._run_pids: set[int] = set()
        self._strangers: set[int] = set()

    def channels(self, device: str, sensor: str) -> list[Channel]:
        """Return what there is to read, as rows of this device and sensor."""
        return [
            Channel(device, sensor, ("cpu_total_s",), self.totals, Every(TOTALS_S)),
            Channel(device, sensor, ("stopped_pid",), self.stopped_processes, Every(STOPS_S)),
        ]

    def totals(self) -> list[Value]:
        """Return all that counts up.

        Raises:
            SensorError: the kernel does not say what the CPUs do.
        """
        stats = self._stats_of_candidates()
        tree = self._run_pids | self._roots.intersection(stats)
        values = [*self._cpu_times(), Value("cpu_own_s", sum(_used_s(stats[pid]) for pid in tree))]
        groups = {group for pid in tree for group in self._cpu_limits(pid)}
        if groups:
            counts = [_read_counts(group / "cpu.stat") for group in groups]
            periods = sum(count.get("nr_periods", 0.0) for count in counts)
            throttled = sum(count.get("nr_throttled", 0.0) for count in counts)
            values += [Value("quota_periods", periods), Value("quota_throttled", throttled)]
        pressure = read_text(self._proc / "pressure" / "cpu").partition("total=")[2].split()
        if pressure:
            values.append(Value("cpu_pressure_s", int(pressure[0]) / 1e6))
        return values

    def stopped_processes(self) -> list[Value]:
        """Return the run's processes that are stopped, as of those that ``totals`` saw last."""
        return [
            Value("stopped_pid", float(pid), self.name(pid))
            for pid in self._run_pids
            if stat_fields(pid, self._proc)[:1] == ["T"]
        ]

    def others_cpu_s(self) -> dict[int, float]:
        """Return the CPU time, in s, of each process that is not the run's.

        Without that of its children: a parent is given all of it at once when one has ended.
        """
        stats = self._stats(pids(self._proc))
        run_pids = {*self._run.roots(), *descendant_pids(self._run.roots(), stats)}
        return {pid: _used_s(fields[:13]) for pid, fields in stats.items() if pid not in run_pids}

    def shares_cpus(self, pid: int) -> bool:
        """Return whether a process may use any of the CPUs that the run may."""
        try:
            return any(f"cpu{number}" in self._cpus for number in os.sched_getaffinity(pid))
        except OSError:  # it is gone, or hidden
            return True

    def is_kernel_thread(self, pid: int) -> bool:
        """Return whether it is a thread of the kernel, which works for all and cannot be ended."""
        return bool(int(next(iter(stat_fields(pid, self._proc)[6:]), 0)) & _PF_KTHREAD)

    def name(self, pid: int) -> str:
        """Return a process's name."""
        return read_text(self._proc / str(pid) / "comm") or "unknown"

    def _stats_of_candidates(self) -> dict[int, list[str]]:
        """Return what is known of each process that may be the run's, and find out which are.

        A process that descends from none of the roots never will, so it is looked at only once:
        a large machine has thousands.
        """
        current_pids, roots = set(pids(self._proc)), self._run.roots()
        # A number that is gone may come back as another process.
        self._strangers = self._strangers & current_pids if roots == self._roots else set()
        stats = self._stats(current_pids - self._strangers)
        self._roots, self._run_pids = roots, set(descendant_pids(roots, stats))
        known_pids = {0, *self._strangers, *stats}
        self._strangers |= {
            pid for pid in stats.keys() - self._run_pids - roots if int(stats[pid][1]) in known_pids
        }
        return stats

    def _stats(self, process_ids: Iterable[int]) -> dict[int, list[str]]:
        stats = ((pid, stat_fields(pid, self._proc)) for pid in process_ids)
        return {pid: fields for pid, fields in stats if len(fields) > 14}

    def _cpu_times(self) -> list[Value]:
        """Return the time, busy time and stolen time of our CPUs, and of all, in s."""
        lines = [line.split() for line in read_text(self._proc / "stat").splitlines()]
        times = {
            line[0]: [int(ticks) * _TICK_S for ticks in line[1 : 1 + _COUNTED_FIELDS]]
            for line in lines
            if line and line[0].startswith("cpu")
        }
        machine = times.get("cpu", [])
        if not any(machine):
            raise SensorError("/proc/stat says nothing of the CPUs here")
        # A container's own /proc/stat may number the CPUs otherwise.
        run_cpus = [times[cpu] for cpu in self._cpus if cpu in times] or [machine]
        return [
            Value("cpu_total_s", sum(map(sum, run_cpus))),
            Value("cpu_busy_s", sum(sum(ticks_s[:_BUSY_FIELDS]) for ticks_s in run_cpus)),
            Value("cpu_steal_s", sum(ticks_s[_STEAL_FIELD] for ticks_s in run_cpus)),
            Value("machine_total_s", sum(machine)),
            Value("machine_busy_s", sum(machine[:_BUSY_FIELDS])),
        ]

    def _cpu_limits(self, pid: int) -> Iterator[Path]:
        """Yield the control groups with a limit of CPU time that a process is in."""
        for line in read_text(self._proc / str(pid) / "cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            for base in {controllers, "cpu"} if controllers else {".", "unified"}:
                folder = self._cgroups / base
                for part in ("", *path.strip("/").split("/")):
                    folder /= part
                    quota = read_text(folder / "cpu.max") or read_text(folder / "cpu.cfs_quota_us")
                    if quota[:1].isdigit():
                        yield folder


def _used_s(fields: Sequence[str]) -> float:
    """Return a process's CPU time, with that of its children that have ended (proc(5))."""
    return sum(int(ticks) for ticks in fields[11:15]) * _TICK_S


def _read_counts(path: Path) -> dict[str, float]:
    lines = (line.split() for line in read_text(path).splitlines())
    return {words[0]: float(words[1]) for words in lines if len(words) == 2}
