"""Which package each backend's catalogue is read from, and the reading."""

from collections.abc import Callable, Mapping
from pathlib import Path

from llenergymeasure.config.catalogue.knob import Catalogue
from llenergymeasure.config.catalogue.reading import sglang, tensorrt, transformers, vllm
from llenergymeasure.config.catalogue.reading.release import Release

PACKAGES: Mapping[str, str] = {
    "pytorch": "transformers",
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt": "tensorrt_llm",
}

_READERS: Mapping[str, Callable[[Release], Catalogue]] = {
    "pytorch": transformers.read,
    "vllm": vllm.read,
    "sglang": sglang.read,
    "tensorrt": tensorrt.read,
}


def read_release(backend: str, location: Path | None) -> Catalogue:
    """Return the catalogue of an engine's release, without importing it.

    Args:
        backend: one of :data:`PACKAGES`.
        location: a wheel, or a folder that holds the package's folder; null for what is
            installed in this environment.

    Raises:
        ConfigurationError: there is no such release, or it is laid out otherwise than those known.
    """
    package = PACKAGES[backend]
    release = Release.installed(package) if location is None else Release(package, location)
    return _READERS[backend](release)
