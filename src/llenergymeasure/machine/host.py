"""The computer a run was made on: processor, memory, kernel. What cannot be read is None."""

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_PROCESS_GROUPS = Path("/proc/self/cgroup")


def host() -> dict[str, Any]:
    """Return what describes the computer; memory in bytes."""
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "os": _os_name(),
        "cpu": cpu(),
        "memory_total_bytes": memory_bytes("MemTotal"),
        "memory_limit_bytes": memory_limit_bytes(),
    }


def model_name() -> str | None:
    """Return the name of the processor's model; None where the kernel names a board alone."""
    return _field_value(_lines(Path("/proc/cpuinfo")), "model name")


def cpu() -> dict[str, Any]:
    """Return the processor's name, how much of it this process may use, and how it is clocked.

    ``governors`` counts logical processors by their cpufreq governor; ``boost`` is whether they
    may clock above their base.
    """
    lines = _lines(Path("/proc/cpuinfo"))
    return {
        "name": _field_value(lines, "model name") or _field_value(lines, "Hardware"),
        "architecture": platform.machine(),
        "sockets": len({line for line in lines if line.startswith("physical id")}) or None,
        "logical_count": os.cpu_count(),
        "usable_count": len(os.sched_getaffinity(0)),
        "quota_count": cpu_quota(),
        "governors": _governors(),
        "boost": _boost(),
        "hyperthreading": _flag(_CPUS / "smt/active"),
        "virtual": any(line.startswith("flags") and " hypervisor" in line for line in lines),
    }


def parse_numbers(text: str) -> set[int]:
    """Return the numbers of a list as the kernel and SLURM write it, ``0-2,5``; else none."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            return set()
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def memory_bytes(name: str) -> int | None:
    """Return an entry of /proc/meminfo, such as ``MemAvailable``."""
    value = _field_value(_lines(Path("/proc/meminfo")), f"{name}:")
    return None if value is None else int(value.split()[0]) * 1024


def memory_limit_bytes() -> int | None:
    """Return what the control groups (a container, a scheduler's job) allow; None if unlimited."""
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [read_text(group / name) for group in _groups("memory") for name in names]
    limits = [int(text) for text in texts if text.isdecimal()]
    total = memory_bytes("MemTotal")
    # Version 1 says "unlimited" with a number near 2^63.
    return min((limit for limit in limits if total is None or limit < total), default=None)


def cpu_quota() -> float | None:
    """Return how many processors' time the control groups allow; None if unlimited."""
    quotas = (_quota(group) for group in _groups("cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(group: Path) -> float | None:
    version_1 = [read_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    for fields in (read_text(group / "cpu.max").split(), version_1):
        if len(fields) == 2 and all(field.isdecimal() for field in fields):
            return int(fields[0]) / int(fields[1])
    return None


def _groups(controller: str) -> Iterator[Path]:
    """Yield the control groups that may limit this process: its own and all above (cgroups(7)).

    Where the tree is a container's, the group by which the host calls it is not in it, and its root
    is this container's group.
    """
    for line in _lines(_PROCESS_GROUPS):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUP / controller if controllers else _CGROUP
        group_path = PurePosixPath(path.lstrip("/"))
        yield from (root / group for group in (group_path, *group_path.parents))


def _governors() -> dict[str, int] | None:
    counts: dict[str, int] = {}
    for path in _CPUS.glob("cpu[0-9]*/cpufreq/scaling_governor"):
        governor = read_text(path)
        if governor:
            counts[governor] = counts.get(governor, 0) + 1
    return dict(sorted(counts.items())) or None


def _boost() -> bool | None:
    no_turbo = _flag(_CPUS / "intel_pstate/no_turbo")
    return _flag(_CPUS / "cpufreq/boost") if no_turbo is None else not no_turbo


def _flag(path: Path) -> bool | None:
    text = read_text(path)
    return text == "1" if text else None


def _field_value(lines: list[str], key: str, separator: str = ":") -> str | None:
    for line in lines:
        if line.startswith(key):
            return line.partition(separator)[2].strip() or None
    return None


def _os_name() -> str | None:
    name = _field_value(_lines(Path("/etc/os-release")), "PRETTY_NAME=", "=")
    return None if name is None else name.strip('"')


def _lines(path: Path) -> list[str]:
    return read_text(path).splitlines()


def read_text(path: Path) -> str:
    """Return what a file of the kernel says, without its ends; nothing if it cannot be read."""
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
