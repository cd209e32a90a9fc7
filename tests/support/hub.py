"""A hub cache with a model in it, as a download would leave it."""

import shutil
from pathlib import Path

from llenergymeasure.workload.models.tiny import tiny_llama_folder


def offer_model(hub: Path, repository: str) -> None:
    """Put the tiny model into a hub cache under a repository's name."""
    revision = "0" * 40
    base = hub / f"models--{repository.replace('/', '--')}"
    shutil.copytree(tiny_llama_folder(), base / "snapshots" / revision)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(revision)
