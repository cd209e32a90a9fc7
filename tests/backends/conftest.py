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
def nothing_to_collect() -> Iterator[None]:
    """What collects garbage does not look at all that transformers is made of."""
    gc.freeze()
    yield
    gc.unfreeze()
