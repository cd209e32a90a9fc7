"""Images: what each backend's is called, where it lies, and the digest that names its content."""

import hashlib
import json
import os
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import llenergymeasure
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.files import open_to_read, read_json, sha256, write_text
from llenergymeasure.installation import workflow_root
from llenergymeasure.redact import without_secrets
from llenergymeasure.screen import printable
from llenergymeasure.workload.cache import cache_folder

DIGESTS = "digests.json"
"""Digests of .sif files by path, size and time: hashing one of 15 GB takes half a minute."""

_LOG_HEAD_BYTES = 1 << 16
_MESSAGE_CHARS = 300

_FATAL = re.compile(r"^FATAL:[ \t]{2,}(\S.*)\n", re.MULTILINE)
"""A whole line of Apptainer's, which sets its words apart; the C library's has one space."""


@dataclass(frozen=True)
class SifImage:
    """An image that Apptainer runs.

    Attributes:
        location: a file or folder's absolute path, or an address such as ``docker://…``.
        built_here: whether the workflow builds it where it is missing.
    """

    location: str
    built_here: bool = False

    @property
    def path(self) -> Path | None:
        """The file or folder; None for an address."""
        return None if "://" in self.location else Path(self.location)

    def digest(self) -> str | None:
        """Return ``sha256:…`` of the file, or what its address is pinned to.

        None for a folder, whose content can change under a run, and for an unpinned address.
        """
        if self.path is None:
            _, mark, pinned = self.location.partition("@sha256:")
            return f"sha256:{pinned}" if mark else None
        return _file_digest(self.path) if self.path.is_file() else None


def why_not_started(log: str) -> str:
    """Return what Apptainer said in a failed job of SLURM whose image did not start; else nothing.

    Snakemake's own log only names those of the jobs. What else stands in them is anybody's.
    """
    for path in failed_job_logs(log):
        with suppress(OSError), open_to_read(path) as stream:
            text = stream.read(_LOG_HEAD_BYTES).decode(errors="replace")
            match = _FATAL.search(text.partition("Activating singularity image ")[2])
            if match is not None:
                message = printable(without_secrets(match[1]))[:_MESSAGE_CHARS]
                return f"Apptainer did not start the image: {message} ({path})"
    return ""


def failed_job_logs(log: str) -> list[str]:
    """Return the logs of the jobs of SLURM that failed, as Snakemake names them."""
    failed_line = r"^ +log: (?:.*, )?(/.+) \(check log file\(s\) for error details\)$"
    submitted_line = r"^Job \d+ has been submitted with SLURM jobid .* \(log: (.+)\)\.$"
    submitted_logs = set(re.findall(submitted_line, log, re.MULTILINE))
    failed_logs = dict.fromkeys(re.findall(failed_line, log, re.MULTILINE))
    return [path for path in failed_logs if path in submitted_logs]


def image_folder() -> Path:
    """Return where images that are built here lie: ``$LLEM_IMAGES``, or in the cache."""
    configured = os.environ.get("LLEM_IMAGES")
    return Path(configured).absolute() if configured else cache_folder().absolute() / "images"


def sif_image(backend: str, location: str | None) -> SifImage:
    """Return the image of a backend for Apptainer: the one given, else the project's own.

    The project's own is what was built here; else what was released; else what will be built.
    """
    if location is not None:
        if "://" in location:
            return SifImage(location)
        return SifImage(str(Path(location).expanduser().absolute()))
    built = image_folder() / f"{backend}.sif"
    pinned = released().get(backend)
    if pinned is not None and not built.exists():
        return SifImage(f"docker://{pinned}")
    return SifImage(str(built), built_here=True)


def docker_image(backend: str, image: str | None) -> str:
    """Return the image of a backend for Docker: the one given, else released, else built here."""
    return image or released().get(backend) or local_tag(backend)


def local_tag(backend: str) -> str:
    """Return the name under which an image is put that is built here for Docker."""
    return f"llenergymeasure-{backend}:{llenergymeasure.__version__}"


def build_command(backend: str, runner: str) -> str:
    """Return what builds an image here, in a clone and from a wheel."""
    python = shlex.quote(sys.executable)
    return f"{python} -m llenergymeasure.containers.image_build {backend} --runner {runner}"


def released() -> dict[str, str]:
    """Return the released images by backend, each ``name@sha256:…``."""
    try:
        content = json.loads((workflow_root() / "containers" / "released.json").read_text())
    except (OSError, ConfigurationError):
        return {}
    return {str(backend): str(image) for backend, image in content.items()}


def _file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, remembered as long as its size, inode and times stay.

    What is remembered is under a hash that covers it too: a damaged memory is none.
    """
    status = path.stat()
    stamps = (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    key = f"{path.resolve()}:{':'.join(map(str, stamps))}"
    cache_file = image_folder() / DIGESTS
    digests = read_json(cache_file) or {}
    digest, _, checksum = str(digests.get(key, "")).partition(" ")
    if checksum and checksum == _checksum(key, digest):
        return digest
    digest = f"sha256:{sha256(path)}"
    digests[key] = f"{digest} {_checksum(key, digest)}"
    with suppress(OSError):
        write_text(cache_file, json.dumps(digests, indent=1) + "\n")
    return digest


def _checksum(key: str, digest: str) -> str:
    return hashlib.sha256(f"{key} {digest}".encode()).hexdigest()[:16]
