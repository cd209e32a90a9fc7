"""TensorRT-LLM's knobs: ``TorchLlmArgs`` and ``TrtLlmArgs``, and ``SamplingParams``."""

import ast
from dataclasses import replace

from llenergymeasure.config.catalogue.knob import Catalogue, Knob
from llenergymeasure.config.catalogue.reading.collecting import named_classes, own_class
from llenergymeasure.config.catalogue.reading.fields import class_fields
from llenergymeasure.config.catalogue.reading.names import Sources
from llenergymeasure.config.catalogue.reading.release import Release
from llenergymeasure.config.catalogue.reading.types import TypeReader, merged

_ARGUMENTS = "tensorrt_llm.llmapi.llm_args"
_SAMPLING = "tensorrt_llm.sampling_params"
_BACKENDS = ("pytorch", "tensorrt")
"""Which of the two classes is meant; neither lists both."""


def read(release: Release) -> Catalogue:
    """Return the catalogue of a release of TensorRT-LLM.

    The package index holds only a stub of it: the sources lie in its container image, or in its
    public repository. What either of its two backends takes is taken; where they differ, the
    default is that of PyTorch's.

    Raises:
        ConfigurationError: the release is laid out otherwise than those known.
    """
    sources, types = Sources(release), TypeReader()
    engine: dict[str, Knob] = {}
    for name in ("TorchLlmArgs", "TrtLlmArgs"):
        for knob in class_fields(own_class(sources, _ARGUMENTS, name), types).values():
            known = engine.get(knob.name, knob)
            both = merged([*known.type, *knob.type])
            engine[knob.name] = replace(known, type=both)
    if "backend" in engine:
        engine["backend"] = replace(engine["backend"], type=({"choices": list(_BACKENDS)},))
    sampling = own_class(sources, _SAMPLING, "SamplingParams")
    assert isinstance(sampling.node, ast.ClassDef)
    parameters = {
        name: replace(knob, internal=name.startswith("_"))
        for name, knob in class_fields(sampling, types, private=True).items()
    }
    sections = {"engine": engine, "sampling": parameters}
    return Catalogue(
        backend="tensorrt",
        package=release.package,
        version=release.version,
        sections=sections,
        classes=named_classes(sections, types),
        source=sources.read(),
    )
