"""What a rule across settings is, and what it is given."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llenergymeasure.config.experiment import ExperimentConfig

Capability = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """What rules need to know of a model.

    Attributes:
        heads: attention heads a layer.
        kv_heads: key and value heads a layer.
        layers: transformer blocks.
        max_positions: longest sequence, in tokens; null where its configuration leaves it open.
        experts: experts a layer; 0 for a dense model.
    """

    heads: int
    kv_heads: int
    layers: int
    max_positions: int | None
    experts: int = 0


@dataclass(frozen=True)
class Facts:
    """What a rule is given; what is not known is null, and then a rule that needs it is silent.

    Attributes:
        config: the experiment.
        engine: the engine's arguments that are set, under its own names.
        sampling: its sampling parameters that are set.
        shape: the model's.
        capability: the least compute capability among the GPUs.
    """

    config: ExperimentConfig
    engine: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    capability: Capability | None = None

    @property
    def longest_tokens(self) -> int | None:
        """The longest prompt and answer together, in tokens; null for prompts of a data set."""
        synthetic = self.config.synthetic()
        if synthetic is None:
            return None
        output = self.sampling.get("max_tokens") or self.sampling.get("max_new_tokens")
        return int(synthetic.input_len + (output or synthetic.output_len))


@dataclass(frozen=True)
class Breach:
    """Settings that do not go together.

    Attributes:
        key: the one to change, by its dotted name.
        message: what is wrong and what would do.
        source: whose check it would have failed, and where that stands.
    """

    key: str
    message: str
    source: str

    def __str__(self) -> str:
        """Return the message and its source."""
        return f"{self.message} ({self.source})"


Found = Iterator[tuple[str, str]]
"""The key to change and the message, for each breach."""


@dataclass(frozen=True)
class Rule:
    """A check that an engine makes only after loading, or never.

    Attributes:
        about: what it holds together, in a few words.
        source: the check it comes from: engine, release, file and function.
        check: yields what breaks it.
    """

    about: str
    source: str
    check: Callable[[Facts], Found]

    def breaches(self, facts: Facts) -> Iterator[Breach]:
        """Yield what breaks the rule."""
        for key, message in self.check(facts):
            yield Breach(key, message, self.source)
