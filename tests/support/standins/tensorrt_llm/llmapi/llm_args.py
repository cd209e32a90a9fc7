"""Configurations of several kinds, which ``from_dict`` of a base class tells apart."""

from typing import Any, ClassVar

from llenergymeasure.config.catalogue import store


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
        catalogue, kind = store.load("tensorrt"), data.pop(cls.told_by, None)
        for part in catalogue.sections["engine"][cls.argument].type:
            fields = catalogue.classes[part["class"]]
            if kind in fields[cls.told_by].choices:
                _refuse_others(part["class"], data)
                return cls(kind, data)
        raise ValueError(f"Invalid {cls.told_by}: {kind}")


class DecodingBaseConfig(_Dispatching):
    argument = "speculative_config"
    told_by = "decoding_type"


class BaseSparseAttentionConfig(_Dispatching):
    argument = "sparse_attention_config"
    told_by = "algorithm"


def _refuse_others(name: str, given: dict[str, Any]) -> None:
    unknown = sorted(set(given) - set(store.load("tensorrt").classes[name]))
    if unknown:
        raise ValueError(f"{name}: Extra inputs are not permitted: {unknown[0]}")
