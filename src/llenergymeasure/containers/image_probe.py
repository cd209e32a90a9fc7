"""Run in a container before the first run: can this image do what will be asked of it?

Standard library only, and no syntax newer than Python 3.9's, so that it can say what is missing.
Prints one JSON object: ``problems``, a sentence each.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

NEEDED = {
    "httptools": "0.6",
    "numpy": "1.26",
    "nvidia-ml-py": "12.560",
    "pyarrow": "17",
    "pydantic": "2.9",
    "pyyaml": "6.0.2",
}
"""What the worker needs of an image, and from which version on: as in pyproject.toml."""

METER_NEEDED = ("nvidia-ml-py", "pyarrow")
"""What it needs for the meter alone."""

PYTHON = (3, 11)


def main(question: str) -> int:
    """Look around; return 0 if there is nothing to complain about, else 1.

    Args:
        question: a JSON object, each of whose parts may be missing: ``source_hash``, what the
            mounted source must be; ``writable``, folders to write into, and ``free_bytes``, what
            must be free there; ``meter``, whether it works in here; ``gpus``, how many must be
            seen; ``driver_cuda``, the newest CUDA that the driver runs; ``boot_id``,
            ``pid_namespace`` and ``monotonic_ns``, the host's, just now; ``backend``, whose engine
            must be able to run; ``study``, the folder of the study that it is asked about.
    """
    request = json.loads(question)
    problems = list(_environment_problems(request))
    if request.get("backend") and not problems:
        problems = _engine_problems(request["backend"])
    if request.get("study") and not problems:
        _ask_engine(request["backend"], request["study"])
    print(json.dumps({"problems": problems}))
    return 1 if problems else 0


def _environment_problems(request: dict[str, Any]) -> Iterator[str]:
    yield from _python_problems(METER_NEEDED if request.get("meter", True) else ())
    if sys.version_info < PYTHON:
        return
    yield from _same_machine(request)
    for folder in request.get("writable", ()):
        yield from _write_problems(Path(folder), request.get("free_bytes", 0))
    if request.get("source_hash"):
        yield from _source_problems(request["source_hash"])
    if request.get("gpus"):
        yield from _gpu_problems(request["gpus"])
    if request.get("driver_cuda"):
        yield from _cuda_problems(request["driver_cuda"])


def _python_problems(meter_needed: Sequence[str]) -> Iterator[str]:
    if sys.version_info < PYTHON:
        required = ".".join(str(part) for part in PYTHON)
        yield f"its Python is {sys.version.split()[0]}; the worker needs {required} or newer"
        return
    for name, minimum in NEEDED.items():
        if name in METER_NEEDED and name not in meter_needed:
            continue
        version = _version(name)
        remedy = ", or execution: {meter: host}" if name in METER_NEEDED else ""
        if version is None:
            yield f"{name} is not installed in it; {minimum} or newer is needed{remedy}"
        elif _version_numbers(version) < _version_numbers(minimum):
            yield f"its {name} is {version}; {minimum} or newer is needed"


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _version_numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3]]


def _same_machine(host: dict[str, Any]) -> Iterator[str]:
    if host.get("boot_id"):
        from llenergymeasure.processes import boot_id

        if boot_id() != host["boot_id"]:
            yield (
                "it runs on another machine than this one (a remote daemon, or Docker's virtual "
                "machine): energy read there would be another machine's"
            )
            return
    now_ns = host.get("monotonic_ns")
    if now_ns is not None and abs(time.monotonic_ns() - now_ns) > 120 * 10**9:
        yield "its monotonic clock is not this machine's: it has a time namespace of its own"
    namespace = host.get("pid_namespace")
    if namespace is not None and str(Path("/proc/self/ns/pid").readlink()) != namespace:
        yield "it does not share this machine's process ids: --pid=host is not allowed here"


def _write_problems(folder: Path, needed_bytes: int) -> Iterator[str]:
    from llenergymeasure.machine.folders import free_bytes, why_not_writable

    reason = why_not_writable(folder)
    if reason is not None:
        yield f"nothing can be written to {folder} from inside: {reason}"
        return
    free = free_bytes(folder)
    if free is not None and free < needed_bytes:
        free_mb, needed_mb = free / 1e6, needed_bytes / 1e6
        yield f"only {free_mb:.0f} MB are free in {folder}; {needed_mb:.0f} MB are needed"


def _source_problems(expected_hash: str) -> Iterator[str]:
    try:
        import llenergymeasure
        from llenergymeasure.machine.environment import source_hash
    except ImportError as error:
        yield f"this project's source cannot be imported in it: {error}"
        return
    folder = Path(llenergymeasure.__file__).parent
    if source_hash(folder) != expected_hash:
        yield (
            f"it runs another version of this project, from {folder}: take that out of the image, "
            "or out of its PYTHONPATH"
        )


def _gpu_problems(expected_count: int) -> Iterator[str]:
    try:
        import pynvml

        pynvml.nvmlInit()
        visible_count = pynvml.nvmlDeviceGetCount()
    except Exception as error:
        yield f"no GPU can be seen in it ({error}): install the NVIDIA container toolkit"
        return
    if visible_count < expected_count:
        yield f"{visible_count} of {expected_count} GPUs can be seen in it"


def _cuda_problems(driver: str) -> Iterator[str]:
    """Yield what is wrong if the image's CUDA is of a later major version than the driver runs.

    Source: NVIDIA, "CUDA Compatibility": minor versions run on any driver of their major version.
    """
    image = _image_cuda()
    if image and _version_numbers(image)[:1] > _version_numbers(driver)[:1]:
        yield f"its CUDA is {image}, and this driver runs {driver} at most: update the driver"


def _image_cuda() -> str | None:
    build = re.search(r"[+]cu(\d+)(\d)$", _version("torch") or "")
    return f"{build[1]}.{build[2]}" if build else os.environ.get("CUDA_VERSION")


def _engine_problems(backend: str) -> list[str]:
    """Return what keeps a backend's engine from running, asked of the mounted source."""
    required_sections = {"openai": {"openai": {"base_url": "http://127.0.0.1:8000/v1"}}}
    try:
        from llenergymeasure.backends import registry
        from llenergymeasure.config.experiment import ExperimentConfig

        settings = {"model": "tiny-llama", "backend": backend, **required_sections.get(backend, {})}
        config = ExperimentConfig.model_validate(settings)
        return [str(problem) for problem in registry.get(backend).problems(config)]
    except Exception as error:  # an engine that breaks on import included
        return [f"the worker does not start in it: {error}"]


def _ask_engine(backend: str, folder: str) -> None:
    """Keep what the engine says of the study's settings; where it cannot be asked, runs will."""
    with suppress(Exception):
        from llenergymeasure.backends.refusals import write_refusals_in_child
        from llenergymeasure.results.layout import StudyFolder

        write_refusals_in_child(backend, StudyFolder(Path(folder)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
