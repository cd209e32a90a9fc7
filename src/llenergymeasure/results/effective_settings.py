"""The values of engine settings that are really in force, as the engine reports them."""

from collections.abc import Iterator, Mapping
from typing import Any

_ELSEWHERE = {
    "vllm.engine.attention_backend": "attention",
    "vllm.engine.kv_cache_dtype": "cache_dtype",
    "pytorch.batch_size": None,
}
"""Settings with another name in the report. Several processes report the sum of their batches."""

_LEFT_TO_IT = ("auto", "default")


def settings_in_force(swept: Mapping[str, Any], backend: str, resolved: Any) -> dict[str, Any]:
    """Return the values in force of those swept settings of which the engine reports just one.

    Args:
        swept: the settings that the study sweeps, by dotted key; null leaves one to the engine.
        backend: the engine.
        resolved: what the engine reports of its settings.
    """
    told = {key: _told(key, resolved) for key in swept if key.startswith(f"{backend}.")}
    return {key: values[0] for key, values in told.items() if len(values) == 1}


def resolved_otherwise(config: Mapping[str, Any], resolved: Any) -> dict[str, str]:
    """Return the engine's settings whose value in force is not the one asked for, with both values.

    Args:
        config: the experiment, only what is set.
        resolved: what the engine reports of its settings.
    """
    backend = str(config.get("backend"))
    found = {}
    for key, asked in _plain_settings(config.get(backend) or {}, backend):
        values = _told(key, resolved)
        if values and _comparable(asked) not in map(_comparable, values):
            found[key] = f"{asked} was asked for and {' and '.join(map(str, values))} is in force"
    return found


def _told(key: str, resolved: Any) -> list[Any]:
    """Return the different values that a report has for a setting, at any depth."""
    name = _ELSEWHERE.get(key, key.rpartition(".")[2])
    found = {} if name is None else {_comparable(each): each for each in _named(name, resolved)}
    return list(found.values())


def _named(name: str, account: Any) -> Iterator[Any]:
    if isinstance(account, list):
        for each in account:
            yield from _named(name, each)
    elif isinstance(account, Mapping):
        for key, value in account.items():
            if key != name:
                yield from _named(name, value)
            elif isinstance(value, list):
                yield from (each for each in value if _is_plain(each))
            elif _is_plain(value):
                yield value


def _plain_settings(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        key = f"{prefix}.{name}"
        if name in ("engine", "sampling") and isinstance(value, Mapping):
            yield from _plain_settings(value, key)
        elif _is_plain(value) and str(value).lower() not in _LEFT_TO_IT:
            yield key, value


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _comparable(value: Any) -> Any:
    """Return a value in one spelling for all engines: torch.bfloat16 is bfloat16."""
    return value.lower().removeprefix("torch.") if isinstance(value, str) else value
