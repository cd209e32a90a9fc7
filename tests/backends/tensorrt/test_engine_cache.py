"""The cache of compiled engines, with real processes at it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends.tensorrt.engine_cache import (
    FACTS,
    EngineCache,
    EngineKey,
    engines_folder,
)

KEY = EngineKey("sha256:abc", {"max_batch_size": 8}, ("NVIDIA H200 9.0",), "1.2.1")

BUILDER = textwrap.dedent(
    """
    import json, sys, time
    from pathlib import Path
    from llenergymeasure.backends.tensorrt.engine_cache import EngineCache, EngineKey
    folder, takes_s = Path(sys.argv[1]), float(sys.argv[2])
    def build(place):
        with (folder / "builds.txt").open("a") as log:
            log.write("x")
        (place / "rank0.engine").write_text("half")
        print("building", flush=True)
        time.sleep(takes_s)
        (place / "rank0.engine").write_text("whole")
        (place / "config.json").write_text("{}")
    key = EngineKey("sha256:abc", {"max_batch_size": 8}, ("NVIDIA H200 9.0",), "1.2.1")
    lease = EngineCache(folder).obtain(key, "tiny", build)
    print(json.dumps({
        "built": lease.built, "engine": (lease.folder / "rank0.engine").read_text(),
        "waited_s": lease.waited_s, "build_s": lease.build_s,
    }), flush=True)
    sys.stdin.read()
    """
)


def build(place: Path) -> None:
    (place / "rank0.engine").write_text("whole")


Start = Callable[[float], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Start builders, which keep their engine until their standard input is closed."""
    started: list[subprocess.Popen[str]] = []

    def one(takes_s: float) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(tmp_path), str(takes_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield one
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise AssertionError("ended without an answer")


def wait_for_the_build(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"


def test_an_engine_is_built_once_and_found_again(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    assert not cache.has(KEY)
    first = cache.obtain(KEY, "tiny", build)
    second = cache.obtain(KEY, "tiny", lambda _: pytest.fail("was built again"))
    assert (first.built, second.built) == (True, False)
    assert second.folder == tmp_path / KEY.hash
    assert (second.folder / "rank0.engine").read_text() == "whole"
    assert second.build_s == first.build_s
    first.release()
    second.release()


@pytest.mark.parametrize(
    "other",
    [
        EngineKey("sha256:abd", KEY.options, KEY.gpus, KEY.tensorrt_llm),
        EngineKey(KEY.model, {"max_batch_size": 9}, KEY.gpus, KEY.tensorrt_llm),
        EngineKey(KEY.model, KEY.options, ("NVIDIA A100 8.0",), KEY.tensorrt_llm),
        EngineKey(KEY.model, KEY.options, (*KEY.gpus, *KEY.gpus), KEY.tensorrt_llm),
        EngineKey(KEY.model, KEY.options, KEY.gpus, "1.2.2"),
    ],
)
def test_whatever_an_engine_depends_on_names_it(other: EngineKey) -> None:
    assert other.hash != KEY.hash


def test_two_builders_at_once_build_one_engine(start: Start, tmp_path: Path) -> None:
    first, second = start(0.5), start(0.5)
    answers = [told(first), told(second)]
    assert sorted(answer["built"] for answer in answers) == [False, True]
    assert [answer["engine"] for answer in answers] == ["whole", "whole"]
    assert (tmp_path / "builds.txt").read_text() == "x"
    waited = next(answer["waited_s"] for answer in answers if not answer["built"])
    assert waited > 0


def test_a_killed_builder_leaves_nothing_and_the_next_one_builds(
    start: Start, tmp_path: Path
) -> None:
    first = start(60)
    wait_for_the_build(first)
    waiting = start(0)
    cache = EngineCache(tmp_path)
    assert not cache.has(KEY)
    assert cache.leftovers() == []  # Somebody is at work on it.
    first.send_signal(signal.SIGKILL)
    answer = told(waiting)
    assert answer["built"]
    assert answer["engine"] == "whole"
    assert [engine.hash for engine in cache.engines()] == [KEY.hash]
    assert not list(tmp_path.glob("*.build"))


def test_what_a_killed_builder_left_is_found_and_cleared(start: Start, tmp_path: Path) -> None:
    builder = start(60)
    wait_for_the_build(builder)
    builder.kill()
    builder.wait()
    cache = EngineCache(tmp_path)
    (left,) = cache.leftovers()
    cache.clear(left)
    assert cache.leftovers() == []
    assert not left.exists()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        build(place)
        raise RuntimeError("out of memory")

    cache = EngineCache(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory"):
        cache.obtain(KEY, "tiny", fail)
    assert not cache.has(KEY)
    assert cache.engines() == []
    assert cache.leftovers() == []
    cache.obtain(KEY, "tiny", build).release()
    assert cache.has(KEY)


def test_an_engine_without_its_facts_is_built_again(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    lease = cache.obtain(KEY, "tiny", build)
    lease.release()
    (lease.folder / FACTS).unlink()
    (lease.folder / "rank0.engine").write_text("torn")
    again = cache.obtain(KEY, "tiny", build)
    assert again.built
    assert (again.folder / "rank0.engine").read_text() == "whole"
    again.release()


def test_an_engine_in_use_is_not_removed(start: Start, tmp_path: Path) -> None:
    holder = start(0)
    told(holder)
    cache = EngineCache(tmp_path)
    (engine,) = cache.engines()
    assert engine.in_use
    assert not cache.remove(engine)
    # Others may use it at the same time.
    cache.obtain(KEY, "tiny", build).release()
    holder.communicate()
    (engine,) = cache.engines()
    assert not engine.in_use
    assert cache.remove(engine)
    assert cache.engines() == []
    assert [path.name for path in tmp_path.iterdir()] == ["builds.txt"]


def test_the_one_used_last_comes_first(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for name in ("old", "new"):
        lease = cache.obtain(EngineKey(name, {}, (), "1"), name, build)
        lease.release()
        if name == "old":
            os.utime(lease.folder / FACTS, (time.time() - 90, time.time() - 90))
    assert [engine.model_name for engine in cache.engines()] == ["new", "old"]
    assert cache.engines()[1].used_s > 80
    assert cache.engines()[0].bytes > 0


def test_place_is_the_home_s_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLEM_ENGINES", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engines_folder() == tmp_path / ".llenergymeasure" / "trt-engines"
    monkeypatch.setenv("LLEM_ENGINES", str(tmp_path / "own"))
    assert engines_folder() == tmp_path / "own"
