"""Checkpoints that are the tiny model's, but for what a test is about."""

import json
import shutil
from pathlib import Path
from typing import Any

from llenergymeasure.workload.models.tiny import tiny_llama_folder


def changed_model(folder: Path, file: str = "config.json", **changes: Any) -> Path:
    """Copy the tiny model into a folder that is not there; of ``file`` None takes a key out."""
    shutil.copytree(tiny_llama_folder(), folder)
    content = json.loads((folder / file).read_text()) | changes
    kept = {name: value for name, value in content.items() if value is not None}
    (folder / file).write_text(json.dumps(kept))
    return folder
