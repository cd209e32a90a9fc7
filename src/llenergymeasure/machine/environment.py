"""The machine and the software a run was made with: packages, container, variables, no secret."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llenergymeasure
from llenergymeasure.files import sha256
from llenergymeasure.machine.gpus.state import cuda_driver_version, gpu_state
from llenergymeasure.machine.host import host
from llenergymeasure.machine.scheduler import job_facts
from llenergymeasure.processes import ChildError, run_to_end
from llenergymeasure.redact import is_secret_name, without_secrets

_RELEVANT = re.compile(
    r"^(CUDA_|NVIDIA_|HF_|TRANSFORMERS_|TORCH|PYTORCH_|VLLM_|SGLANG_|SGL_|TRTLLM_|TLLM_|FLASHINFER_"
    r"|TRITON_|NCCL_|OMP_|KMP_|GOMP_|MKL_|OPENBLAS_|MALLOC_|LD_PRELOAD$|SLURM_JOB_ID$"
    r"|SLURM_JOB_PARTITION$|SLURM_(STEP|JOB)_GPUS$|SLURMD_NODENAME$|SLURM_CPUS_|APPTAINER_NAME$"
    r"|ROCR_|HIP_|HSA_|GPU_DEVICE_ORDINAL$"
    r"|LLEM_(?!NOTIFY$|PLAN$|QUIET$|DRIVEN$|OVERRIDES$|JOB$|IN_USE$|SERVER_KEY$|NODE_)"
    r"|NVML_SIM_(TRACE|T0|CLOCK)$)"
)


def environment() -> dict[str, Any]:
    """Return what describes this machine and process; what cannot be read is None.

    Takes tens of ms, most of them to import NVML's bindings. ``gpus`` are those a CUDA process
    here would use, in their state at this moment: gather it while a run is at rest.
    ``job`` is the scheduler's, None outside of any.
    """
    versions = packages()
    facts = {
        **host(),
        "python": sys.version.split()[0],
        "packages": versions,
        "cuda": cuda_runtime(versions, os.environ),
        "container": container(os.environ),
        "variables": variables(os.environ),
        "job": job_facts(),
    }
    cards = gpus()
    if cards:
        facts["cuda_driver"] = cuda_driver_version()
    return {**facts, "gpus": cards}


def gpus() -> list[dict[str, Any]]:
    """Return the state of each GPU that a CUDA process here would use."""
    from llenergymeasure.machine.gpus.inventory import discover, visible_gpus

    return [gpu_state(gpu) for gpu in visible_gpus(discover()).gpus]


def provenance() -> dict[str, Any]:
    """Return which version of this project, from which source, ran on which interpreter."""
    folder = Path(llenergymeasure.__file__).parent
    return {
        "llenergymeasure_version": llenergymeasure.__version__,
        "llenergymeasure_commit": _commit(folder),
        "source_sha256": source_hash(folder),
        "python_executable": sys.executable,
        "container": container(os.environ),
    }


def source_hash(folder: Path) -> str:
    """Return one hash over all sources and their data below ``folder``, whatever their commit."""
    from llenergymeasure.ids import digest

    sources = sorted([*folder.rglob("*.py"), *folder.rglob("*.json")])
    return digest([[str(path.relative_to(folder)), sha256(path)] for path in sources])


def _commit(folder: Path) -> str | None:
    describe = ("describe", "--always", "--dirty", "--abbrev=40")
    try:
        result = run_to_end(["git", "-C", str(folder), *describe], 5.0)
    except ChildError:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def packages(folders: list[str] | None = None) -> dict[str, str]:
    """Return the version of every installed distribution, by its normalised name.

    Read from the folders' names (``name-version.dist-info``, the packaging specification
    "Recording installed projects"), which takes a hundredth of the time of opening each. Of a
    name that is there twice, the first on the path counts, as for an import.
    """
    versions: dict[str, str] = {}
    for folder in sys.path if folders is None else folders:
        try:
            names = [path.name for path in Path(folder or ".").iterdir()]
        except OSError:
            continue
        for name in names:
            stem, dot, kind = name.rpartition(".")
            project, dash, version = stem.partition("-")
            if dot and dash and kind in ("dist-info", "egg-info"):
                # An .egg-info name ends in the Python it was made for: name-1.0-py3.11.
                version = re.sub(r"-py\d.*$", "", version)
                versions.setdefault(re.sub(r"[-_.]+", "-", project).lower(), version)
    return dict(sorted(versions.items()))


def cuda_runtime(versions: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str] | None:
    """Return the CUDA that programs here are built for, and where that was read; None if none."""
    torch = sys.modules.get("torch")
    loaded = getattr(getattr(torch, "version", None), "cuda", None)
    if loaded:
        return {"version": str(loaded), "source": "torch.version.cuda"}
    for name, version in versions.items():
        if re.fullmatch(r"nvidia-cuda-runtime(-cu\d+)?", name):
            return {"version": version, "source": name}
    if environ.get("CUDA_VERSION"):
        return {"version": environ["CUDA_VERSION"], "source": "CUDA_VERSION"}
    return None


def container(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the container this runs in, as far as it is known; None outside of one.

    From inside, nobody knows an image's digest: whoever started it says it in
    ``LLEM_IMAGE_DIGEST``, or, of an image that was built just now, in a file next to it.
    """
    image = environ.get("LLEM_IMAGE")
    digest = environ.get("LLEM_IMAGE_DIGEST") or built_digest(image)
    if file := environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return {"runtime": "apptainer", "image": image or file, "digest": digest}
    for marker, runtime in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(marker).exists():
            return {"runtime": runtime, "image": image, "digest": digest}
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return {"runtime": "kubernetes", "image": image, "digest": digest}
    return None


def built_digest(image: str | None) -> str | None:
    """Return the digest that the build of an image has left next to it, if it is the image's."""
    if image is None:
        return None
    try:
        digest, size_bytes = Path(f"{image}.digest").read_text().split()
        return digest if int(size_bytes) == Path(image).stat().st_size else None
    except (OSError, ValueError):
        return None


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that can change a result; a secret's name and value are left out.

    A secret inside another variable's value is replaced.
    """
    return {
        name: without_secrets(value)
        for name, value in sorted(environ.items())
        if _RELEVANT.search(name) and not is_secret_name(name) and not _holds_address(name, value)
    }


def _holds_address(name: str, value: str) -> bool:
    """Return whether a variable of ours holds an address: knowing one may be the right to it."""
    return name.startswith("LLEM_") and re.match(r"https?://", value.strip()) is not None
