"""Run in a container before the first run: can this image do what will be asked of it?

Standard library only, and no syntax newer than Python 3.9's, so that it can say what is missing.
Prints one JSON object: ``problems``, a sentence each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Look around; return 0 if there is nothing to complain about, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source-hash", help="what the mounted source must be")
    parser.add_argument("--writable", action="append", default=[], help="a folder to write into")
    parser.add_argument("--free", type=int, default=0, help="bytes that must be free there")
    parser.add_argument("--no-meter", action="store_true", help="the meter works outside")
    parser.add_argument("--gpus", type=int, default=0, help="how many cards must be seen")
    parser.add_argument("--driver-cuda", help="the newest CUDA that the driver runs, as 13.0")
    parser.add_argument("--boot-id", help="the host's")
    parser.add_argument("--pid-namespace", help="the host's")
    parser.add_argument("--monotonic-ns", type=int, help="the host's clock, just now")
    parser.add_argument("--backend", help="whose engine must be able to run")
    parser.add_argument("--study", help="the folder of the study that it is asked about")
    options = parser.parse_args(arguments)
    problems = list(_found(options))
    if options.backend and not problems:
        problems = _engine_problems(options.backend)
    if options.study and not problems:
        _ask_engine(options.backend, options.study)
    print(json.dumps({"problems": problems}))
    return 1 if problems else 0


def _found(options: argparse.Namespace) -> Iterator[str]:
    yield from _python_problems(() if options.no_meter else METER_NEEDED)
    if sys.version_info < PYTHON:
        return
    yield from _same_machine(options)
    for folder in options.writable:
        yield from _write_problems(folder, options.free)
    if options.source_hash:
        yield from _source_problems(options.source_hash)
    if options.gpus:
        yield from _gpu_problems(options.gpus)
    if options.driver_cuda:
        yield from _cuda_problems(options.driver_cuda)


def _python_problems(meter_needed: Sequence[str]) -> Iterator[str]:
    if sys.version_info < PYTHON:
        wanted = ".".join(str(part) for part in PYTHON)
        yield f"its Python is {sys.version.split()[0]}; the worker needs {wanted} or newer"
        return
    for name, least in NEEDED.items():
        if name in METER_NEEDED and name not in meter_needed:
            continue
        version = _version(name)
        way_out = ", or execution: {meter: host}" if name in METER_NEEDED else ""
        if version is None:
            yield f"{name} is not installed in it; {least} or newer is needed{way_out}"
        elif _numbers(version) < _numbers(least):
            yield f"its {name} is {version}; {least} or newer is needed"


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3]]


def _same_machine(options: argparse.Namespace) -> Iterator[str]:
    if options.boot_id:
        from llenergymeasure.processes import boot_id

        if boot_id() != options.boot_id:
            yield (
                "it runs on another machine than this one (a remote daemon, or Docker's virtual "
                "machine): energy read there would be another machine's"
            )
            return
    if options.monotonic_ns and abs(time.monotonic_ns() - options.monotonic_ns) > 120 * 10**9:
        yield "its monotonic clock is not this machine's: it has a time namespace of its own"
    if options.pid_namespace and str(Path("/proc/self/ns/pid").readlink()) != options.pid_namespace:
        yield "it does not share this machine's process ids: --pid=host is not allowed here"


def _write_problems(folder: str, free: int) -> Iterator[str]:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable.") as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        yield f"nothing can be written to {folder} from inside: {error.strerror}"
        return
    room = os.statvfs(folder)
    if room.f_bavail * room.f_frsize < free:
        left = room.f_bavail * room.f_frsize / 1e6
        yield f"only {left:.0f} MB are free in {folder}; {free / 1e6:.0f} MB are needed"


def _source_problems(wanted: str) -> Iterator[str]:
    try:
        import llenergymeasure
        from llenergymeasure.machine.environment import source_hash
    except ImportError as error:
        yield f"this project's source cannot be imported in it: {error}"
        return
    folder = Path(llenergymeasure.__file__).parent
    if source_hash(folder) != wanted:
        yield (
            f"it runs another version of this project, from {folder}: take that out of the image, "
            "or out of its PYTHONPATH"
        )


def _gpu_problems(wanted: int) -> Iterator[str]:
    try:
        import pynvml

        pynvml.nvmlInit()
        seen = pynvml.nvmlDeviceGetCount()
    except Exception as error:
        yield f"no GPU can be seen in it ({error}): install the NVIDIA container toolkit"
        return
    if seen < wanted:
        yield f"{seen} of {wanted} GPUs can be seen in it"


def _cuda_problems(driver: str) -> Iterator[str]:
    """Yield what is wrong if the image's CUDA is of a later major version than the driver runs.

    Source: NVIDIA, "CUDA Compatibility": minor versions run on any driver of their major version.
    """
    image = _image_cuda()
    if image and _numbers(image)[:1] > _numbers(driver)[:1]:
        yield f"its CUDA is {image}, and this driver runs {driver} at most: update the driver"


def _image_cuda() -> str | None:
    build = re.search(r"[+]cu(\d+)(\d)$", _version("torch") or "")
    return f"{build[1]}.{build[2]}" if build else os.environ.get("CUDA_VERSION")


def _engine_problems(backend: str) -> list[str]:
    """Return what keeps a backend's engine from running, asked of the mounted source."""
    needed = {"openai": {"openai": {"base_url": "http://127.0.0.1:8000/v1"}}}
    try:
        from llenergymeasure.backends import registry
        from llenergymeasure.config.experiment import ExperimentConfig

        settings = {"model": "tiny-llama", "backend": backend, **needed.get(backend, {})}
        config = ExperimentConfig.model_validate(settings)
        return [str(problem) for problem in registry.get(backend).problems(config)]
    except Exception as error:  # an engine that breaks on import included
        return [f"the worker does not start in it: {error}"]


def _ask_engine(backend: str, folder: str) -> None:
    """Keep what the engine says of the study's settings; where it cannot be asked, runs will."""
    with suppress(Exception), redirect_stdout(sys.stderr):
        from llenergymeasure.backends.refusals import ask
        from llenergymeasure.results.layout import StudyFolder

        ask(backend, StudyFolder(Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
