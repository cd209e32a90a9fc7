"""Limits of memory and processors, wherever in the control groups' tree they stand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from llenergymeasure.machine import host

GB = 1024**3
SLURM_V2 = "system.slice/slurmstepd.scope/job_42/step_0/user/task_0"
SLURM_V1 = "slurm/uid_1000/job_42/step_0"

Machine = Callable[[str, dict[str, str]], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a tree of control groups, and this process a member as /proc/self/cgroup says."""

    def make(membership: str, tree: dict[str, str]) -> None:
        for name, content in tree.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        (tmp_path / "self").write_text(membership + "\n")
        monkeypatch.setattr(host, "_CGROUP", tmp_path / "cgroup")
        monkeypatch.setattr(host, "_PROCESS_GROUPS", tmp_path / "self", raising=False)
        monkeypatch.setattr(host, "memory_bytes", lambda _name: 64 * GB)

    return make


def limits() -> tuple[int | None, float | None]:
    cpus = host.cpu()["quota_count"]
    return host.memory_limit_bytes(), cpus


def test_a_limit_of_slurm_stands_in_the_jobs_own_group(machine: Machine) -> None:
    machine(
        f"0::/{SLURM_V2}",
        {
            f"{SLURM_V2}/memory.max": "max",
            "system.slice/slurmstepd.scope/job_42/step_0/memory.max": str(4 * GB),
            "system.slice/slurmstepd.scope/job_42/memory.max": str(8 * GB),
            "system.slice/slurmstepd.scope/job_42/cpu.max": "150000 100000",
            "system.slice/memory.max": "max",
        },
    )
    assert limits() == (4 * GB, 1.5)


def test_the_least_limit_above_counts(machine: Machine) -> None:
    machine(
        "0::/user.slice/user-1000.slice/session-2.scope",
        {
            "user.slice/user-1000.slice/session-2.scope/memory.max": str(16 * GB),
            "user.slice/user-1000.slice/session-2.scope/cpu.max": "max 100000",
            "user.slice/user-1000.slice/memory.max": str(2 * GB),
            "user.slice/user-1000.slice/cpu.max": "400000 100000",
            "user.slice/cpu.max": "800000 100000",
        },
    )
    assert limits() == (2 * GB, 4.0)


def test_other_groups_limits_are_others(machine: Machine) -> None:
    machine(
        "0::/system.slice/job_2",
        {"system.slice/job_1/memory.max": str(GB), "system.slice/job_1/cpu.max": "1000 100000"},
    )
    assert limits() == (None, None)


def test_version_1_has_a_tree_for_each_controller(machine: Machine) -> None:
    machine(
        f"11:memory:/{SLURM_V1}\n5:cpu,cpuacct:/{SLURM_V1}\n1:name=systemd:/init.scope\n0::/",
        {
            f"memory/{SLURM_V1}/memory.limit_in_bytes": str(2**63 - 4096),
            "memory/slurm/uid_1000/job_42/memory.limit_in_bytes": str(3 * GB),
            "memory/memory.limit_in_bytes": str(2**63 - 4096),
            f"cpu/{SLURM_V1}/cpu.cfs_quota_us": "-1",
            f"cpu/{SLURM_V1}/cpu.cfs_period_us": "100000",
            "cpu/slurm/uid_1000/job_42/cpu.cfs_quota_us": "50000",
            "cpu/slurm/uid_1000/job_42/cpu.cfs_period_us": "100000",
        },
    )
    assert limits() == (3 * GB, 0.5)


@pytest.mark.parametrize("group", ["/", "/docker/0123abcd", "/../../job_42"])
def test_in_a_container_its_own_group_is_the_root(machine: Machine, group: str) -> None:
    machine(f"0::{group}", {"memory.max": str(GB), "cpu.max": "200000 100000"})
    assert limits() == (GB, 2.0)


def test_more_than_the_machine_has_is_no_limit(machine: Machine) -> None:
    machine("0::/", {"memory.max": str(128 * GB)})
    assert limits() == (None, None)


def test_a_kernel_without_control_groups_limits_nothing(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("", {})
    monkeypatch.setattr(host, "_PROCESS_GROUPS", tmp_path / "absent", raising=False)
    assert limits() == (None, None)


def test_the_name_of_a_board_is_no_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """CodeCarbon looks a processor up by its name; an ARM kernel may name the board alone."""
    board = ["Hardware\t: BCM2711"]
    monkeypatch.setattr(host, "_lines", lambda path: board if path.name == "cpuinfo" else [])
    assert host.cpu()["name"] == "BCM2711"
    assert host.model_name() is None
