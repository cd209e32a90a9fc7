"""The meter: sensors, a recorder of its own process, and the energy computed from its samples."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This room bears the name of the public ``llenergymeasure.meter()``: it is callable too."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from llenergymeasure.meter.block import meter

        return meter(*arguments, **options)


sys.modules[__name__].__class__ = _Room
