import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llenergymeasure.errors import BackendError
from llenergymeasure.workload.cache import cache_folder, make_once
from llenergymeasure.workload.models.known import KNOWN
from llenergymeasure.workload.models.tiny import make_tiny_llama, tiny_llama_folder

WEIGHTS_SHA256 = "e3932afe743c4285f8f3a248fd29e289da14033b90986b318f0fcd9c42865d6a"
VOCABULARY_SHA256 = "0913a45cd204fe2af88e9154982da684854b0b0dd8af2232d4b20298caf90b28"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_files_are_the_same_on_every_machine(tmp_path: Path) -> None:
    made = [tmp_path / name for name in ("a", "b")]
    for folder in made:
        folder.mkdir()
        make_tiny_llama(folder)
    first, second = ({path.name: digest(path) for path in folder.iterdir()} for folder in made)
    assert first == second
    assert first["model.safetensors"] == WEIGHTS_SHA256
    model = json.loads((tmp_path / "a" / "tokenizer.json").read_text())["model"]
    text = json.dumps([model["vocab"], model["merges"]], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == VOCABULARY_SHA256
    assert len(model["vocab"]) == KNOWN["tiny-llama"].vocab_size


def test_makers_at_once_all_get_one_whole_folder(tmp_path: Path) -> None:
    code = (
        "from llenergymeasure.workload.models.tiny import tiny_llama_folder as f;"
        "p = f(); print(p, sorted(x.name for x in p.iterdir()))"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "LLEM_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    (output,) = {maker.communicate(timeout=60)[0] for maker in makers}
    assert all(maker.returncode == 0 for maker in makers)
    assert "model.safetensors" in output
    assert len(list((tmp_path / "models").iterdir())) == 1


def test_a_cached_model_is_not_made_again() -> None:
    folder = tiny_llama_folder()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert tiny_llama_folder() == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_failed_maker_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise BackendError("no")

    with pytest.raises(BackendError):
        make_once(tmp_path / "thing", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "x" * 300):
        monkeypatch.setenv("LLEM_CACHE", str(tmp_path / name))
        with pytest.raises(BackendError, match="LLEM_CACHE"):
            tiny_llama_folder()


def test_the_cache_follows_the_xdg_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLEM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/llenergymeasure")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/llenergymeasure")
