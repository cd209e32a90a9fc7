"""Compiled engines at the command line: shown first, removed on demand, never while in use."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.commands import Said, called
from llenergymeasure.backends.tensorrt.engine_cache import FACTS, EngineCache, EngineKey

Call = Callable[..., Said]


def build(folder: Path) -> None:
    (folder / "rank0.engine").write_bytes(b"x" * 2_000_000)


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    monkeypatch.setenv("LLEM_ENGINES", str(tmp_path))
    return lambda *arguments: called(monkeypatch, capsys, "engines", *arguments)


@pytest.fixture
def hashes(tmp_path: Path) -> tuple[str, str]:
    """Two engines: one just used, one last used three days ago."""
    found = []
    for model, age_s in (("new/model", 0), ("old/model", 3 * 86_400)):
        key = EngineKey(model, {}, ("NVIDIA H200 9.0",), "1.2.1")
        lease = EngineCache(tmp_path).obtain(key, model, build)
        lease.release()
        then = time.time() - age_s
        os.utime(lease.folder / FACTS, (then, then))
        found.append(key.hash)
    return found[0], found[1]


def test_list_tells_what_each_is_for(call: Call, hashes: tuple[str, str]) -> None:
    told = call("list").out
    first, second = hashes
    assert told.index(first) < told.index(second)
    for word in ("new/model", "1.2.1", "NVIDIA H200 9.0", "2.0 MB", "3 d ago", "4.0 MB in"):
        assert word in told
    plain = json.loads(call("list", "--json").out)
    assert [engine["hash"] for engine in plain] == [first, second]
    assert plain[0]["key"]["tensorrt_llm"] == "1.2.1"


def test_without_any_it_says_so(call: Call) -> None:
    assert "No engines in" in call("list").out
    assert "Nothing to remove" in call("prune", "--yes").out


def test_prune_shows_first(call: Call, hashes: tuple[str, str], tmp_path: Path) -> None:
    told = call("prune")
    assert told.code == 0
    assert hashes[0] in told.out
    assert "--yes" in told.out
    assert len(EngineCache(tmp_path).engines()) == 2


def test_prune_removes_what_is_named_or_long_unused(
    call: Call, hashes: tuple[str, str], tmp_path: Path
) -> None:
    assert "Removed 1, 2.0 MB" in call("prune", "--unused-days", "2", "--yes").out
    assert [engine.hash for engine in EngineCache(tmp_path).engines()] == [hashes[0]]
    assert "Removed 1" in call("prune", hashes[0][:8], "--yes").out
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_fits_nothing_is_an_error(call: Call, hashes: tuple[str, str]) -> None:
    told = call("prune", "zzz", "--yes")
    assert told.code == 2
    assert hashes[0] in told.err


def test_what_a_run_uses_is_kept(call: Call, hashes: tuple[str, str], tmp_path: Path) -> None:
    key = EngineKey("new/model", {}, ("NVIDIA H200 9.0",), "1.2.1")
    lease = EngineCache(tmp_path).obtain(key, "new/model", build)
    told = call("prune", "--yes")
    assert told.code == 1
    assert f"Kept {hashes[0]}" in told.out
    lease.release()
    assert [engine.hash for engine in EngineCache(tmp_path).engines()] == [hashes[0]]
