"""The engines: which can be imported here, tried in a process of its own."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator

from llenergymeasure.backends.registry import names
from llenergymeasure.cli.doctor.finding import Finding
from llenergymeasure.containers.runner_choice import PACKAGES, apptainer_command, container_command
from llenergymeasure.errors import LlemError
from llenergymeasure.installation import install_command
from llenergymeasure.machine.gpus.inventory import discover, visible

IMPORT_LIMIT_S = 180.0
"""Engines read gigabytes of libraries on a first import from a network disk."""

_TRY = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    found[name] = str(getattr(module, "__version__", "?"))
torch = sys.modules.get("torch")
cuda = None if torch is None else bool(torch.cuda.is_available())
built = None if torch is None else torch.version.cuda
print("\\n" + json.dumps({"versions": found, "cuda": cuda, "built": built}))
"""


def engines() -> Iterator[Finding]:
    """Look at each engine's package, and say what runs it otherwise."""
    can_run = False
    for backend, packages in PACKAGES.items():
        finding = _engine(backend, packages)
        can_run = can_run or finding.state == "ok"
        yield finding
    container = container_command() or apptainer_command()
    if not can_run and container is None:
        yield Finding(
            "an engine",
            "wrong",
            "none can be used here, and there is no Docker, Podman or Apptainer",
            f"{install_command('pytorch')}, or install a container runtime",
        )


def _engine(backend: str, packages: tuple[str, ...]) -> Finding:
    if backend not in names():
        return Finding(backend, "absent", "this version checks its settings and cannot run it yet")
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        detail = f"not here: {', '.join(missing)}"
        remedy = f"give it an image: runners: {{{backend}: docker}}"
        if backend == "pytorch":
            remedy = install_command("pytorch")
        return Finding(backend, "absent", detail, remedy)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", _TRY, *packages],
            capture_output=True,
            text=True,
            timeout=IMPORT_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(backend, "wrong", f"its import takes more than {IMPORT_LIMIT_S:g} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        remedy = "reinstall it in an environment of its own, or give it an image"
        return Finding(backend, "wrong", f"cannot be imported: {last}", remedy)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    if found["cuda"] is False and _gpu_there():
        built = "without CUDA" if found["built"] is None else f"for CUDA {found['built']}"
        return Finding(
            backend,
            "wrong",
            f"{versions}: NVML sees a GPU, and this PyTorch (built {built}) cannot use it",
            "install a PyTorch that is built for a CUDA which the driver can run; a run would "
            "compute on the CPU next to the GPU, and is refused",
        )
    device = {True: ", CUDA works", False: ", on the CPU: torch sees no CUDA device"}
    return Finding(backend, "ok", f"{versions}{device.get(found['cuda'], '')}")


def _gpu_there() -> bool:
    """Return whether NVML sees a GPU that a run here would use."""
    try:
        return bool(visible(discover()).gpus)
    except LlemError:
        return False
