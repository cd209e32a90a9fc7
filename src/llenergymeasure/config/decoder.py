"""How the next token is chosen."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from llenergymeasure.config.section import Section
from llenergymeasure.config.serving import MAX_TOKENS, Tokens

Preset = Literal["deterministic", "standard", "creative", "factual"]

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "deterministic": {"temperature": 0.0, "do_sample": False},
    "standard": {"temperature": 1.0, "do_sample": True, "top_p": 0.95},
    "creative": {"temperature": 0.8, "do_sample": True, "top_p": 0.9, "repetition_penalty": 1.1},
    "factual": {"temperature": 0.3, "do_sample": True},
}
"""The settings of each decoder preset; a setting that is given itself wins."""


class DecoderConfig(Section):
    """How the next token is chosen, the same on every backend."""

    preset: Preset | None = Field(
        default=None,
        description="Named set of the values below; a value given as well wins.",
        examples=["deterministic"],
    )
    temperature: float = Field(
        default=1.0, ge=0, le=2, description="Sampling temperature; 0 is greedy."
    )
    do_sample: bool = Field(
        default=True, description="Sample; false, or temperature 0, takes the likeliest token."
    )
    top_k: int = Field(
        default=50, ge=0, le=MAX_TOKENS, description="Sample from the k likeliest; 0 is off."
    )
    top_p: float = Field(
        default=1.0, ge=0, le=1, description="Sample from the likeliest that add up to this share."
    )
    repetition_penalty: float = Field(
        default=1.0, ge=0.1, le=10, description="Penalty on tokens already used; 1 is none."
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Least probability, relative to the likeliest token."
    )
    min_new_tokens: Tokens | None = Field(
        default=None,
        description="Fewest tokens to generate; an answer may end by itself after so many.",
    )

    @classmethod
    def _prepare(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        preset = data.get("preset")
        if not isinstance(preset, str) or preset not in PRESETS:
            return data
        explicit = {key: value for key, value in data.items() if value is not None}
        return {**PRESETS[preset], **explicit}

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return not self.do_sample or self.temperature == 0
