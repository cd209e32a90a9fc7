"""Who uses the CPUs, with made-up folders in place of /proc and the control groups'."""

import os
from pathlib import Path

import pytest

from llenergymeasure.sensors.base import SensorError
from llenergymeasure.sensors.foreign_processes import RunProcesses
from llenergymeasure.sensors.host_cpu import HostCpu
from sensors.proc import ENGINE, OTHER, RUN, WORKER, Proc

SERVER = 4_000_400
TICK_S = 0.01


class Machine(Proc):
    """A machine of four CPUs, of which the run may use 0 and 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "proc")
        self.cgroups, self.engine_pid_file = folder / "cgroup", folder / "engine.pid"
        self.cpus([1] * 10, [1] * 10)
        run = RunProcesses(RUN, self.folder, self.engine_pid_file)
        self.host = HostCpu(run, self.folder, self.cgroups, cpus={0, 1})

    def cpus(self, ours: list[int], theirs: list[int]) -> None:
        """Set the ticks of each of our two CPUs, and of each of the two others."""
        lines = {"cpu": [2 * a + 2 * b for a, b in zip(ours, theirs, strict=True)]}
        lines |= {f"cpu{number}": ours if number < 2 else theirs for number in range(4)}
        text = "\n".join(f"{name} {' '.join(map(str, ticks))}" for name, ticks in lines.items())
        (self.folder / "stat").write_text(f"{text}\nintr 5 6\n")

    def totals(self) -> dict[str, float | None]:
        return {value.quantity: value.value for value in self.host.totals()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_cpus_that_the_run_may_use_and_the_machine_are_counted_apart(machine: Machine) -> None:
    machine.cpus([100, 20, 30, 500, 7, 1, 2, 40, 9, 9], [10, 0, 0, 90, 0, 0, 0, 0, 0, 0])

    totals = machine.totals()

    assert totals["cpu_total_s"] == pytest.approx(2 * 700 * TICK_S)
    assert totals["cpu_busy_s"] == pytest.approx(2 * 150 * TICK_S)
    assert totals["cpu_steal_s"] == pytest.approx(2 * 40 * TICK_S)
    assert totals["machine_total_s"] == pytest.approx((1400 + 200) * TICK_S)
    assert totals["machine_busy_s"] == pytest.approx((300 + 20) * TICK_S)


def test_the_runs_processes_are_its_tree_with_those_that_ended(machine: Machine) -> None:
    machine.process(RUN, 1, ticks=(1, 1, 0, 0))
    machine.process(ENGINE, RUN, ticks=(100, 10, 30, 5))
    machine.process(WORKER, ENGINE, ticks=(40, 4, 0, 0), state="Z")
    machine.process(OTHER, 1, ticks=(5000, 0, 0, 0))
    assert machine.totals()["cpu_own_s"] == pytest.approx(191 * TICK_S)
    assert machine.host.others_cpu_s() == {1: 0.0, OTHER: 50.0}


def test_what_a_child_had_used_is_not_its_parents_once_it_has_ended(machine: Machine) -> None:
    machine.process(OTHER, 1, ticks=(10, 5, 90_000, 0))
    assert machine.host.others_cpu_s()[OTHER] == pytest.approx(0.15)


def test_threads_of_the_kernel_are_known_by_their_flag(machine: Machine) -> None:
    machine.process(70, 2, "kworker/0:1", flags=0x04208060)
    kernels = [pid for pid in (70, OTHER, 12345) if machine.host.is_kernel_thread(pid)]
    assert kernels == [70]


def test_who_may_use_none_of_the_runs_cpus_does_not_share_them() -> None:
    run, affinity = RunProcesses(os.getpid()), os.sched_getaffinity(0)
    assert HostCpu(run, cpus=affinity).shares_cpus(os.getpid())
    assert not HostCpu(run, cpus={max(affinity) + 1}).shares_cpus(os.getpid())
    assert HostCpu(run, cpus={max(affinity) + 1}).shares_cpus(2**22 + 1)  # gone


def test_an_engine_that_is_no_child_of_the_run_is_the_runs_all_the_same(machine: Machine) -> None:
    machine.process(SERVER, 1, ticks=(70, 0, 0, 0))
    assert machine.totals()["cpu_own_s"] == 0
    machine.engine_pid_file.write_text(str(SERVER))
    assert machine.totals()["cpu_own_s"] == pytest.approx(0.7)


def test_who_came_later_is_told_apart_too(machine: Machine) -> None:
    machine.totals()
    machine.process(OTHER + 1, OTHER, ticks=(900, 0, 0, 0))
    machine.process(WORKER + 1, WORKER, ticks=(50, 0, 0, 0))
    assert machine.totals()["cpu_own_s"] == pytest.approx(0.5)
    # A number of a stranger that is used again by a process of the run.
    machine.end(OTHER)
    machine.totals()
    machine.process(OTHER, ENGINE, ticks=(25, 0, 0, 0))
    assert machine.totals()["cpu_own_s"] == pytest.approx(0.75)


def test_a_process_that_is_stopped_is_named_until_it_goes_on(machine: Machine) -> None:
    machine.host.totals()
    assert machine.host.stopped_processes() == []
    machine.process(WORKER, ENGINE, state="T", name="worker")
    machine.process(OTHER, 1, state="T")
    machine.process(RUN, 1, state="T")  # it only watches
    (value,) = machine.host.stopped_processes()
    assert (value.quantity, value.value, value.note) == ("stopped_pid", WORKER, "worker")
    machine.process(WORKER, ENGINE, state="S")
    assert machine.host.stopped_processes() == []


@pytest.mark.parametrize(
    ("cgroup", "group", "quota"),
    [
        ("0::/jobs/run\n", "jobs/run", "cpu.max"),
        ("0::/jobs/run\n", "jobs", "cpu.max"),  # a limit above holds below
        ("0::/\n", ".", "cpu.max"),  # a container's own
        ("3:cpuset:/\n2:cpu,cpuacct:/run\n0::/\n", "cpu,cpuacct/run", "cpu.cfs_quota_us"),
        ("2:cpu:/run\n0::/\n", "cpu/run", "cpu.cfs_quota_us"),
    ],
)
def test_periods_in_which_the_control_group_held_it_back(
    machine: Machine, cgroup: str, group: str, quota: str
) -> None:
    machine.process(ENGINE, RUN, cgroup=cgroup)
    folder = machine.cgroups / group
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text("nr_periods 80\nnr_throttled 20\nthrottled_usec 5\n")
    (folder / quota).write_text("max 100000\n" if quota == "cpu.max" else "-1\n")
    assert "quota_periods" not in machine.totals()

    (folder / quota).write_text("150000 100000\n" if quota == "cpu.max" else "150000\n")

    totals = machine.totals()
    assert (totals["quota_periods"], totals["quota_throttled"]) == (80, 20)


def test_pressure_where_the_kernel_tells_it(machine: Machine) -> None:
    assert "cpu_pressure_s" not in machine.totals()
    (machine.folder / "pressure").mkdir()
    text = "some avg10=1.00 avg60=0.5 avg300=0.1 total=2500000\nfull avg10=0.00 total=7\n"
    (machine.folder / "pressure" / "cpu").write_text(text)
    assert machine.totals()["cpu_pressure_s"] == 2.5


def test_a_kernel_that_says_nothing_is_no_quiet_machine(machine: Machine) -> None:
    (machine.folder / "stat").write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    with pytest.raises(SensorError, match="says nothing of the CPUs"):
        machine.host.totals()


def test_a_containers_own_numbers_of_its_cpus(machine: Machine) -> None:
    (machine.folder / "stat").write_text("cpu 30 0 0 70 0 0 0 0 0 0\ncpu7 30 0 0 70 0 0 0 0 0 0\n")
    assert machine.totals()["cpu_busy_s"] == pytest.approx(0.3)
