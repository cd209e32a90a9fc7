"""The configurations: each refuses a key that is not its own."""

from typing import Any

from llenergymeasure.config.catalogue import store


class _Configuration:
    def __init__(self, **given: Any) -> None:
        unknown = sorted(set(given) - set(store.load("tensorrt").classes[type(self).__name__]))
        if unknown:
            raise ValueError(f"{type(self).__name__}: Extra inputs are not permitted: {unknown[0]}")
        self.given = given


class BuildConfig(_Configuration):
    pass


class QuantConfig(_Configuration):
    pass


class CalibConfig(_Configuration):
    pass
