"""The values of engine settings that are really in force, as the engine reports them."""

from collections.abc import Iterator, Mapping
from typing import Any

_REPORTED_NAMES = {
    "vllm.engine.attention_backend": "attention",
    "vllm.engine.kv_cache_dtype": "cache_dtype",
    "pytorch.batch_size": None,
}
"""Settings with another name in the report. Several processes report the sum of their batches."""

_ENGINE_CHOICES = ("auto", "default")


def settings_in_force(swept: Mapping[str, Any], backend: str, resolved: Any) -> dict[str, Any]:
    """Return the values in force of those swept settings of which the engine reports just one.

    Args:
        swept: the settings that the study sweeps, by dotted key; null leaves one to the engine.
        backend: the engine.
        resolved: what the engine reports of its settings.
    """
    keys = [key for key in swept if key.startswith(f"{backend}.")]
    reported = {key: _reported_values(key, resolved) for key in keys}
    return {key: values[0] for key, values in reported.items() if len(values) == 1}


def differing_settings(config: Mapping[str, Any], resolved: Any) -> dict[str, str]:
    """Return the engine's settings whose value in force is not the one asked for, with both values.

    Args:
        config: the experiment, only what is set.
        resolved: what the engine reports of its settings.
    """
    backend = str(config.get("backend"))
    differences = {}
    for key, requested in _scalar_settings(config.get(backend) or {}, backend):
        values = _reported_values(key, resolved)
        if values and _normalised(requested) not in map(_normalised, values):
            in_force = " and ".join(map(str, values))
            differences[key] = f"{requested} was asked for and {in_force} is in force"
    return differences


def _reported_values(key: str, resolved: Any) -> list[Any]:
    """Return the different values that a report has for a setting, at any depth."""
    name = _REPORTED_NAMES.get(key, key.rpartition(".")[2])
    if name is None:
        return []
    return list({_normalised(value): value for value in _values_named(name, resolved)}.values())


def _values_named(name: str, report: Any) -> Iterator[Any]:
    if isinstance(report, list):
        for item in report:
            yield from _values_named(name, item)
    elif isinstance(report, Mapping):
        for key, value in report.items():
            if key != name:
                yield from _values_named(name, value)
            elif isinstance(value, list):
                yield from (item for item in value if _is_scalar(item))
            elif _is_scalar(value):
                yield value


def _scalar_settings(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        key = f"{prefix}.{name}"
        if name in ("engine", "sampling") and isinstance(value, Mapping):
            yield from _scalar_settings(value, key)
        elif _is_scalar(value) and str(value).lower() not in _ENGINE_CHOICES:
            yield key, value


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _normalised(value: Any) -> Any:
    """Return a value in one spelling for all engines: torch.bfloat16 is bfloat16."""
    return value.lower().removeprefix("torch.") if isinstance(value, str) else value
