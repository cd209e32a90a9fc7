"""Build a backend's image from the project's own definition.

``python -m llenergymeasure.containers.image_build pytorch --runner apptainer [--base BASE]``, where
BASE is a folder or an image.
"""

import argparse
import fcntl
import glob
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import llenergymeasure
from llenergymeasure.config.backends.facts import ENGINES
from llenergymeasure.containers.apptainer import missing_capabilities
from llenergymeasure.containers.calls import call
from llenergymeasure.containers.docker import ASK_LIMIT_S, find_engine
from llenergymeasure.containers.images import SifImage, image_folder, local_tag
from llenergymeasure.containers.runner_choice import apptainer_command
from llenergymeasure.errors import (
    EXIT_FAILED,
    EXIT_OK,
    ConfigurationError,
    LlemError,
    Problem,
    as_message,
)
from llenergymeasure.files import write_text
from llenergymeasure.installation import workflow_root
from llenergymeasure.machine.folders import free_bytes
from llenergymeasure.processes import is_hidden, start_ticks
from llenergymeasure.screen import say

OWN_BASE_ROOM_BYTES = 4e9

COMPRESSION = "-comp zstd -Xcompression-level 1"
"""A tenth of gzip's time to build, less to read at each start, 5 % larger."""


class BuildError(LlemError):
    """An image could not be built."""


def main(arguments: list[str] | None = None) -> int:
    """Build one image and print where it is; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("backend", choices=tuple(ENGINES))
    parser.add_argument("--runner", choices=("apptainer", "docker"), required=True)
    parser.add_argument("--base", help="build on this image, or root folder, instead")
    parser.add_argument("--out", type=Path, help="the .sif to write (apptainer)")
    parser.add_argument("--tag", help="the image's name (docker)")
    options = parser.parse_args(arguments)
    try:
        if options.runner == "apptainer":
            image = str(build_sif(options.backend, options.out, options.base))
        else:
            image = build_docker(options.backend, options.tag, options.base)
    except (LlemError, OSError) as error:
        say(f"{options.backend}: {as_message(error)}")
        return error.exit_code if isinstance(error, LlemError) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED
    print(image)
    return EXIT_OK


def build_sif(backend: str, out: Path | None = None, base: str | None = None) -> Path:
    """Build the image of a backend for Apptainer and return its file.

    Raises:
        ConfigurationError: there is no Apptainer, or no room.
        BuildError: it failed; its own words are on standard error.
    """
    command = apptainer_command()
    if command is None:
        raise ConfigurationError("there is no command apptainer here: install Apptainer")
    out = (out or image_folder() / f"{backend}.sif").absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    _check_room(backend, out.parent, base)
    temporary = _temporary_image(out, os.getpid())
    args = [command, "build", "--force", "--mksquashfs-args", COMPRESSION]
    args += ["--build-arg", f"version={llenergymeasure.__version__}"]
    if base is not None:
        kind, address = _bootstrap(base)
        args += ["--build-arg", f"bootstrap={kind}", "--build-arg", f"base={address}"]
    folder = workflow_root() / "containers"
    environment = dict(os.environ)
    if dropped := missing_capabilities():
        environment["APPTAINER_DROP_CAPS"] = ",".join(dropped)
    _remove_abandoned(out)
    try:
        args += [str(temporary), str(folder / f"{backend}.def")]
        _run_build(args, folder.parent, environment)
        _move_in(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _move_in(temporary: Path, out: Path) -> None:
    """Put an image in its place with its digest next to it: of two builds, both are of the later.

    A run in the same call of the workflow was described before there was an image.
    """
    folder = os.open(out.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        temporary.replace(out)
        size_bytes, digest = out.stat().st_size, SifImage(str(out)).digest()
        write_text(Path(f"{out}.digest"), f"{digest} {size_bytes}\n")
    finally:
        os.close(folder)


def _temporary_image(out: Path, pid: int | str) -> Path:
    """Return where a process builds an image: two at a time have a file each."""
    return out.with_name(f".{out.stem}.{socket.gethostname()}.{pid}.part.sif")


def _remove_abandoned(out: Path) -> None:
    """Remove what builds of this machine left that were killed."""
    for path in out.parent.glob(f".{glob.escape(out.stem)}.*.part.sif"):
        pid = path.name.split(".")[-3]
        is_ours = path == _temporary_image(out, pid) and pid.isdecimal()
        if is_ours and start_ticks(int(pid)) is None and not is_hidden(int(pid)):
            with suppress(OSError):
                path.unlink()


def _bootstrap(base: str) -> tuple[str, str]:
    """Return how a definition names what it builds on: ``Bootstrap`` and ``From``."""
    if Path(base).exists():
        return "localimage", str(Path(base).absolute())
    kind, mark, address = base.partition("://")
    return (kind, address) if mark else ("docker", base)


def build_docker(backend: str, tag: str | None = None, base: str | None = None) -> str:
    """Build the image of a backend for Docker and return its name.

    Raises:
        ContainerError: there is no Docker, or its daemon does not answer.
        BuildError: it failed; its own words are on standard error.
    """
    engine = find_engine()
    tag = tag or local_tag(backend)
    folder = workflow_root() / "containers"
    args = [engine.command, "build", "--network=host", "--tag", tag]
    args += ["--build-arg", f"VERSION={llenergymeasure.__version__}"]
    args += [] if base is None else ["--build-arg", f"BASE={base}"]
    # The files that definitions copy, and not the whole repository with its results.
    definition = folder / f"{backend}.Dockerfile"
    environment = dict(os.environ)
    if call([engine.command, "buildx", "version"], ASK_LIMIT_S).returncode != 0:
        environment["DOCKER_BUILDKIT"] = "0"
    lines = definition.read_text().splitlines()
    with tempfile.TemporaryDirectory(prefix="llem-build-") as context:
        for name in (line.split()[1] for line in lines if line.startswith("COPY ")):
            target = Path(context) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.parent / name, target)
        _run_build([*args, "--file", str(definition), context], folder.parent, environment)
    return tag


def _check_room(backend: str, folder: Path, base: str | None) -> None:
    needed = ENGINES[backend].image_disk_bytes if base is None else OWN_BASE_ROOM_BYTES
    for place, setting in (
        (folder, "LLEM_IMAGES"),
        (Path(os.environ.get("APPTAINER_TMPDIR", "/tmp")), "APPTAINER_TMPDIR"),  # noqa: S108 - only asked how full
    ):
        free = free_bytes(place)
        if free is not None and free < needed:
            raise ConfigurationError(
                Problem(
                    f"{free / 1e9:.0f} GB are free and {needed / 1e9:.0f} GB are needed to build "
                    f"the image: make room, or set {setting} to another folder",
                    file=place,
                )
            )


def _run_build(command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    result = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=2, check=False
    )
    if result.returncode != 0:
        raise BuildError(
            f"{command[0]} build ended with {result.returncode}; its words are above. Without a "
            "network, bring an image's file instead (docs/containers.md)"
        )


if __name__ == "__main__":
    sys.exit(main())
