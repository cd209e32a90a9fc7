"""TensorRT-LLM's own cache of compiled engines, in a folder of ours.

Its key holds its release and all that is built in, but the model's path alone, and not the card:
so each model's content and set of cards has a cache of its own. One run at a time has a card, so
no two build in one cache at once, which TensorRT-LLM makes fail.
"""

import os
from pathlib import Path

from llenergymeasure.config.backends.tensorrt import TensorRTConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.identity import Identifier
from llenergymeasure.errors import BackendError
from llenergymeasure.ids import digest
from llenergymeasure.machine.gpus.allotment import allot
from llenergymeasure.workload.models.hub import cached_file
from llenergymeasure.workload.models.resolve import ModelSource, resolve_model

CACHE_SWITCH = "TLLM_LLMAPI_BUILD_CACHE"
CACHE_ROOT = "TLLM_LLMAPI_BUILD_CACHE_ROOT"
"""Read by ``LLM`` and by ``trtllm-serve`` (``tensorrt_llm/llmapi/build_cache.py``)."""


def engines_folder() -> Path:
    """Return where engines are kept: ``$LLEM_ENGINES``, or ``~/.llenergymeasure/trt-engines``."""
    configured = os.environ.get("LLEM_ENGINES")
    return Path(configured) if configured else Path.home() / ".llenergymeasure" / "trt-engines"


def environment(config: ExperimentConfig) -> dict[str, str]:
    """Return the variables that have TensorRT-LLM keep the engine; none where it compiles none.

    Raises:
        BackendError: the model's files cannot be read.
        ConfigurationError: the model's name means nothing.
    """
    section = config.tensorrt or TensorRTConfig()
    if not section.compiled or section.engine_path is not None:
        return {}
    cards = allot(config.model_dump(exclude_none=True)).uuids
    name = digest([_model_content(resolve_model(config)), *cards])[:16]
    return {CACHE_SWITCH: "1", CACHE_ROOT: str(engines_folder() / name)}


def _model_content(source: ModelSource) -> str:
    """Return a name for a model's content: the same for the same weights, whatever its place.

    A local folder goes by the hash of its files, a model on the hub by its commit there, and
    random weights by their architecture.
    """
    if source.random:
        return f"random:{digest(dict(source.config))}"
    if source.folder is None:
        path = cached_file(source.name, "config.json", source.revision)
        if path is None:
            raise BackendError(f"model {source.name} is not in the local cache of the hub")
        return f"hub:{source.name}@{path.parent.name}"
    identifier = Identifier()
    try:
        content = identifier.content_hash(source.folder)
    except OSError as error:
        raise BackendError(f"model folder {source.folder} cannot be read: {error}") from error
    identifier.save()
    return f"sha256:{content}"
