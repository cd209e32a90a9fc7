"""What changed between two releases of an engine."""

import json

from llenergymeasure.config.catalogue import store
from llenergymeasure.config.catalogue.knob import Catalogue, Changes, Knob, type_text
from llenergymeasure.config.catalogue.reading.engines import PACKAGES, read_release
from llenergymeasure.config.catalogue.reading.release import Release
from llenergymeasure.config.nearest import nearest_names

REPLACED_BY = {
    "vllm": {
        "engine.swap_space": "none: newer vLLM recomputes what it evicts; cpu_offload_gb keeps "
        "weights in CPU memory",
        "engine.speculative_model": "engine.speculative_config",
        "engine.num_speculative_tokens": "engine.speculative_config",
        "engine.attention": "engine.attention_config",
    }
}
"""What is known to stand in for a removed knob, where its name does not tell."""


def changes(old: Catalogue, new: Catalogue) -> Changes:
    """Return what ``new`` has that ``old`` had not, what it lost, and what it has otherwise."""
    before = {f"{section}.{knob.name}": knob for section, knob in old.knobs()}
    after = {f"{section}.{knob.name}": knob for section, knob in new.knobs()}
    added = tuple(name for name in after if name not in before)
    known = REPLACED_BY.get(new.backend, {})
    return Changes(
        version=old.version,
        added=added,
        removed={
            name: known.get(name) or _successor(name, before[name], added, after)
            for name in before
            if name not in after
        },
        altered={
            name: how
            for name, knob in after.items()
            if name in before and (how := _alteration(before[name], knob))
        },
    )


def _successor(name: str, knob: Knob, added: tuple[str, ...], after: dict[str, Knob]) -> str | None:
    """Return the added knob that a removed one was probably renamed to."""
    section = name.partition(".")[0]
    like = [
        each for each in added if each.startswith(f"{section}.") and after[each].type == knob.type
    ]
    near = nearest_names(name, like, cutoff=0.85)
    return near[0] if near else None


def _alteration(old: Knob, new: Knob) -> str:
    parts = []
    if old.type != new.type:
        parts.append(_type_alteration(old, new))
    if (old.default, old.default_text) != (new.default, new.default_text):
        parts.append(f"default {_default(old)}, now {_default(new)}")
    if new.deprecated and not old.deprecated:
        parts.append("now deprecated")
    return "; ".join(parts)


def _type_alteration(old: Knob, new: Knob) -> str:
    gone = [str(value) for value in old.choices if value not in new.choices]
    come = [str(value) for value in new.choices if value not in old.choices]
    if old.choices and new.choices and (gone or come):
        words = [f"no longer {', '.join(gone)}"] if gone else []
        words += [f"also {', '.join(come)}"] if come else []
        return "choices: " + "; ".join(words)
    return f"was {type_text(old.type)}, now {type_text(new.type)}"


def _default(knob: Knob) -> str:
    return knob.default_text or json.dumps(knob.default)


def running_differences(backend: str) -> dict[str, object] | None:
    """Return how the engine installed here differs from the committed catalogue; null if not.

    For the record of a run: an engine newer or older than the catalogue may know other knobs.
    Its sources are read, not imported, and only where its version is another one.

    Raises:
        ConfigurationError: the engine is not installed, or laid out otherwise than those known.
    """
    committed = store.load(backend)
    if committed.incomplete is not None:
        return None
    if Release.installed(PACKAGES[backend]).version == committed.version:
        return None
    installed = read_release(backend, None)
    found = changes(committed, installed)
    return {
        "catalogue_version": committed.version,
        "engine_version": installed.version,
        "added": list(found.added),
        "removed": list(found.removed),
        "altered": dict(found.altered),
    }
