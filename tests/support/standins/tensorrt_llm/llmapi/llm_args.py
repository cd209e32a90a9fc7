"""Configurations of several kinds, which ``from_dict`` of a base class tells apart."""

from typing import Any, ClassVar

from llenergymeasure.config.engine_parameters import choices, load, parameters


class Configuration:
    def __init__(self, **given: Any) -> None:
        _refuse_others(type(self).__name__, given)
        self.given = given


class _Dispatching:
    argument: ClassVar[str]
    told_by: ClassVar[str]

    def __init__(self, kind: str, given: dict[str, Any]) -> None:
        self.kind, self.given = kind, given

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "_Dispatching":
        kind = data.pop(cls.told_by, None)
        argument = parameters("tensorrt.engine")[cls.argument]
        for part in argument.get("anyOf", [argument]):
            name = part["$ref"].rpartition("/")[2]
            if kind in choices(load("tensorrt")["$defs"][name]["properties"][cls.told_by]):
                _refuse_others(name, data)
                return cls(kind, data)
        raise ValueError(f"Invalid {cls.told_by}: {kind}")


class DecodingBaseConfig(_Dispatching):
    argument = "speculative_config"
    told_by = "decoding_type"


class BaseSparseAttentionConfig(_Dispatching):
    argument = "sparse_attention_config"
    told_by = "algorithm"


def _refuse_others(name: str, given: dict[str, Any]) -> None:
    unknown = sorted(set(given) - set(load("tensorrt")["$defs"][name]["properties"]))
    if unknown:
        raise ValueError(f"{name}: Extra inputs are not permitted: {unknown[0]}")
