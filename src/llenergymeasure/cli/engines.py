"""``llem engines``: the compiled engines of TensorRT-LLM that are kept between runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from llenergymeasure.backends.tensorrt.engine_cache import EngineCache, StoredEngine
from llenergymeasure.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, Problem

_DAY_S = 86_400.0


def list_command(*, as_json: bool) -> None:
    """Print the engines, the one used last first."""
    cache = EngineCache()
    engines = cache.engines()
    if as_json:
        print(json.dumps([_plain(engine) for engine in engines], indent=1))
        return
    if not engines:
        print(f"No engines in {cache.folder}")
        return
    print("\n".join(_table(engines)))
    print(f"{_size(sum(engine.bytes for engine in engines))} in {cache.folder}")


def prune_command(names: Sequence[str], *, unused_days: float | None, yes: bool) -> int:
    """Remove engines, or show which would be; return the exit code.

    Args:
        names: hashes, or how they begin; none for all.
        unused_days: only those that no run has loaded for so long.
        yes: remove them; else show them alone.

    Raises:
        ConfigurationError: a name fits no engine.
    """
    cache = EngineCache()
    chosen = [
        engine
        for engine in _named(cache.engines(), names)
        if unused_days is None or engine.used_s >= unused_days * _DAY_S
    ]
    leftovers = [] if names else cache.leftovers()
    if not chosen and not leftovers:
        print("Nothing to remove")
        return EXIT_OK
    if chosen:
        print("\n".join(_table(chosen)))
    for path in leftovers:
        print(f"what a broken-off build has left: {path}")
    if not yes:
        print("Nothing removed yet; --yes removes these")
        return EXIT_OK
    kept = [engine for engine in chosen if not cache.remove(engine)]
    for path in leftovers:
        cache.clear(path)
    freed = sum(engine.bytes for engine in chosen) - sum(engine.bytes for engine in kept)
    print(f"Removed {len(chosen) - len(kept)}, {_size(freed)}")
    for engine in kept:
        print(f"Kept {engine.hash}: a run is using it")
    return EXIT_FAILED if kept else EXIT_OK


def _named(engines: list[StoredEngine], names: Sequence[str]) -> list[StoredEngine]:
    for name in names:
        if not any(engine.hash.startswith(name) for engine in engines):
            known = ", ".join(engine.hash for engine in engines) or "none"
            raise ConfigurationError(
                Problem(f"no engine begins so; there are: {known}", found=name)
            )
    if not names:
        return engines
    return [engine for engine in engines if engine.hash.startswith(tuple(names))]


def _table(engines: Sequence[StoredEngine]) -> list[str]:
    header = ["engine", "model", "TensorRT-LLM", "GPUs", "size", "built in", "last used", ""]
    rows = [
        [
            engine.hash,
            engine.model_name,
            engine.key.tensorrt_llm,
            ", ".join(engine.key.gpus),
            _size(engine.bytes),
            f"{engine.build_s:.0f} s",
            _ago(engine.used_s),
            "in use" if engine.in_use else "",
        ]
        for engine in engines
    ]
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def _plain(engine: StoredEngine) -> dict[str, object]:
    return {"hash": engine.hash, **asdict(engine), "folder": str(engine.folder)}


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _ago(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min ago"
    return (
        f"{seconds / 3600:.0f} h ago" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:.0f} d ago"
    )
