"""The digest of an image's file is remembered, and never believed damaged or of another file."""

import os
import random
from pathlib import Path

import pytest

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


def test_another_file_of_the_same_size_and_time_is_hashed(image: Path) -> None:
    before, state = digest_of(image), image.stat()
    image.write_bytes(b"other")
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert digest_of(image) == f"sha256:{sha256(image)}" != before
