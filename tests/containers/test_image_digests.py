"""The digest of an image's file is remembered, and never believed damaged or of another file."""

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from llenergymeasure.containers import docker
from llenergymeasure.containers.images import DIGESTS, SifImage, image_folder
from llenergymeasure.files import sha256


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLEM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "image.sif"
    path.write_bytes(b"image")
    return path


def digest_of(path: Path) -> str | None:
    return SifImage(str(path)).digest()


def test_no_flipped_bit_of_the_memory_is_believed(image: Path) -> None:
    right = f"sha256:{sha256(image)}"
    assert digest_of(image) == right
    memory = image_folder() / DIGESTS
    whole = memory.read_bytes()
    rng = random.Random(5)
    for bit in [rng.randrange(8 * len(whole)) for _ in range(200)]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        memory.write_bytes(flipped)
        assert digest_of(image) == right, bit


@pytest.mark.parametrize(
    ("name", "digests", "recorded"),
    [
        ("a@sha256:02", ["b@sha256:01", "a@sha256:02"], "sha256:02"),
        ("b:latest", ["b@sha256:01"], "sha256:01"),
        ("built:here", [], "sha256:00"),
    ],
)
def test_docker_s_image_is_recorded_as_it_was_named_and_started_by_its_id(
    monkeypatch: pytest.MonkeyPatch, name: str, digests: list[str], recorded: str
) -> None:
    """Between the look and the start a tag may come to mean another image."""
    said = json.dumps([{"Id": "00", "RepoDigests": digests}])
    monkeypatch.setattr(docker, "call", lambda *_: SimpleNamespace(returncode=0, stdout=said))
    assert docker.find_image(docker.Engine("podman", podman=True), name) == ("sha256:00", recorded)


def test_another_file_of_the_same_size_and_time_is_hashed(image: Path) -> None:
    before, state = digest_of(image), image.stat()
    image.write_bytes(b"other")
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert digest_of(image) == f"sha256:{sha256(image)}" != before


@pytest.mark.parametrize(
    ("location", "recorded"),
    [
        ("docker://ghcr.io/a/b@sha256:0123", "sha256:0123"),
        ("docker://ghcr.io/a/b:v1", None),
        ("/tmp", None),
    ],
)
def test_an_address_has_the_digest_that_it_is_pinned_to(
    location: str, recorded: str | None
) -> None:
    assert SifImage(location).digest() == recorded
