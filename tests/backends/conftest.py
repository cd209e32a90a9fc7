import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the tests' own, and no network."""
    folder = tmp_path_factory.getbasetemp() / "llem-cache"
    monkeypatch.setenv("LLEM_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture
def quick_close() -> Iterator[None]:
    """An engine that closes collects garbage: here not of all that transformers is made of."""
    gc.freeze()
    yield
    gc.unfreeze()
