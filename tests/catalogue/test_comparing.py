"""What changed between two releases, and between a catalogue and the engine that runs."""

from pathlib import Path

import pytest

from catalogue.releases import SGLANG, unpack
from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.comparing import changes, running_differences
from llenergymeasure.config.catalogue.knob import Catalogue, Knob


def catalogue(version: str, *knobs: Knob) -> Catalogue:
    return Catalogue("vllm", "vllm", version, {"engine": {knob.name: knob for knob in knobs}})


def test_added_removed_renamed_and_altered() -> None:
    old = catalogue(
        "1",
        Knob("same", ("int",), default=1),
        Knob("default", ("int",), default=1),
        Knob("type", ("int",)),
        Knob("choice", ({"choices": ["a", "b"]},)),
        Knob("disable_radix_caches", ("bool",)),
        Knob("swap_space", ("float",)),
        Knob("gone", ("str",)),
        Knob("going", ("str",)),
    )
    new = catalogue(
        "2",
        Knob("same", ("int",), default=1),
        Knob("default", ("int",), default=2),
        Knob("type", ("str",)),
        Knob("choice", ({"choices": ["b", "c"]},)),
        Knob("disable_radix_cache", ("bool",)),
        Knob("going", ("str",), deprecated=True),
    )
    found = changes(old, new)
    assert found.version == "1"
    assert found.added == ("engine.disable_radix_cache",)
    assert found.removed["engine.disable_radix_caches"] == "engine.disable_radix_cache"
    assert "recomputes" in str(found.removed["engine.swap_space"])
    assert found.removed["engine.gone"] is None
    assert found.altered == {
        "engine.default": "default 1, now 2",
        "engine.type": "was int, now str",
        "engine.choice": "choices: no longer a; also c",
        "engine.going": "now deprecated",
    }


def test_another_engine_at_run_time_is_compared_with_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(unpack(SGLANG, tmp_path)))
    found = running_differences("sglang")
    assert found is not None
    assert found["engine_version"] == "9.9.2"
    assert found["catalogue_version"] == store.load("sglang").version
    assert "engine.stops" in found["added"]
    assert "engine.chunked_prefill_size" in found["removed"]


def test_the_engine_of_the_catalogue_has_no_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = store.load("sglang").version
    same = {**SGLANG, "sglang/version.py": f'__version__ = "{version}"\n'}
    monkeypatch.syspath_prepend(str(unpack(same, tmp_path)))
    assert running_differences("sglang") is None
