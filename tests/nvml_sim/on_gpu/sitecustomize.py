"""Lets transformers compute on the simulated card, as far as anything here can tell.

There is no CUDA device behind the simulated card, and a run whose engine computes on the CPU beside
a metered GPU is refused. On a process's PYTHONPATH (``sim.environment`` puts it there, and children
inherit it) this has the preflight find that PyTorch can use the card, and the loaded engine name
the card as the device it works on. Nothing is imported before the program itself imports it.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def _checks(module: ModuleType) -> None:
    module.why_no_cuda = lambda: None


def _engine(module: ModuleType) -> None:
    from llenergymeasure.machine.gpus.allotment import allot

    class OnTheCard(module.PyTorchEngine):
        """An engine that works on the GPUs that its experiment may use."""

        def __init__(self, config) -> None:
            super().__init__(config)
            self.devices = allot(config.model_dump(exclude_none=True)).uuids

    module.PyTorchEngine = OnTheCard


_CHANGES = {
    "llenergymeasure.backends.pytorch.checks": _checks,
    "llenergymeasure.backends.pytorch.engine": _engine,
}


class _Finder(MetaPathFinder):
    """Finds the modules to change, and has them changed once they are loaded."""

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:  # noqa: ARG002
        spec = PathFinder.find_spec(name, path) if name in _CHANGES else None
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_change(module: ModuleType) -> None:
                load(module)
                _CHANGES[name](module)

            spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Finder())
