"""The machine and the software a run was made with, gathered in one place."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import llenergymeasure
from llenergymeasure.files import sha256

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|AUTH", re.IGNORECASE)
_RELEVANT = re.compile(
    r"^(CUDA_|NVIDIA_|HF_|TRANSFORMERS_|TORCH|PYTORCH_|VLLM_|SGLANG_|TRTLLM_|NCCL_|OMP_|MKL_"
    r"|OPENBLAS_|SLURM_JOB_ID$|SLURM_JOB_PARTITION$|SLURMD_NODENAME$|SLURM_CPUS_|APPTAINER_NAME$"
    r"|LLEM_|NVML_SIM_TRACE$|NVML_SIM_T0$)"
)


def environment() -> dict[str, Any]:
    """Return what describes this machine and process; what cannot be read is null."""
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "os": _os_name(),
        "cpu": cpu(),
        "memory_total_bytes": _memory_total_bytes(),
        "python": platform.python_version(),
        "packages": packages(),
        "container": container(),
        "variables": variables(os.environ),
    }


def provenance() -> dict[str, Any]:
    """Return which version of this project, from which source, ran on which interpreter."""
    folder = Path(llenergymeasure.__file__).parent
    return {
        "llenergymeasure_version": llenergymeasure.__version__,
        "llenergymeasure_commit": _commit(folder),
        "source_sha256": source_hash(folder),
        "python_executable": sys.executable,
    }


def source_hash(folder: Path) -> str:
    """Return one hash over all Python sources below ``folder``, whatever their commit."""
    from llenergymeasure.ids import digest

    sources = sorted(folder.rglob("*.py"))
    return digest([[str(path.relative_to(folder)), sha256(path)] for path in sources])


def cpu() -> dict[str, Any]:
    """Return the processor's name, how many logical ones this process may use, and governor."""
    name = None
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    governor = _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
    return {
        "name": name,
        "logical_count": os.cpu_count(),
        "usable_count": len(os.sched_getaffinity(0)),
        "governor": governor,
    }


def packages() -> dict[str, str]:
    """Return the version of every installed distribution."""
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found[name.lower()] = distribution.version
    return dict(sorted(found.items()))


def container() -> dict[str, Any] | None:
    """Return the container this runs in, as far as it can be told; null outside of one."""
    if image := os.environ.get("APPTAINER_CONTAINER"):
        return {"runtime": "apptainer", "image": image}
    if Path("/.dockerenv").exists():
        return {"runtime": "docker", "image": os.environ.get("LLEM_IMAGE")}
    return None


def variables(source: Any) -> dict[str, str]:
    """Return the environment variables that can change a result, without any secret."""
    kept = {name: value for name, value in source.items() if _RELEVANT.search(name)}
    return {name: value for name, value in sorted(kept.items()) if not _SECRET_NAME.search(name)}


def _commit(folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _os_name() -> str | None:
    for line in _lines(Path("/etc/os-release")):
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return None


def _memory_total_bytes() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _lines(path: Path) -> list[str]:
    return (_text(path) or "").splitlines()


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
