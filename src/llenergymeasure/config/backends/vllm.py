"""Settings of vLLM, under the engine's own names. A null leaves the engine's own default.

Every parameter of the engine is taken as it describes it; those below are of older releases.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.old_names import ATTENTION_LEFT, of_vllm_today
from llenergymeasure.config.section import Count, Fault, Section, Text
from llenergymeasure.config.serving import Tokens


class VLLMEngineConfig(EngineSection):
    """Arguments of vLLM's engine."""

    study_path: ClassVar[str] = "vllm.engine"

    swap_space: float | None = Field(
        default=None, ge=0, description="CPU swap in GiB; left newer vLLM."
    )
    speculative_model: Text | None = Field(
        default=None, description="Draft model; newer vLLM takes it in speculative_config."
    )
    num_speculative_tokens: Count | None = Field(
        default=None, description="Tokens the draft model guesses."
    )
    attention: dict[str, Any] | None = Field(
        default=None, description="Attention; newer vLLM takes it in attention_config."
    )

    @classmethod
    def faults(cls, name: str, value: Any) -> Iterator[Fault]:
        """Yield why a setting may not have that value; attention is what it has become."""
        if name == "attention" and isinstance(value, Mapping):
            free = (*ATTENTION_LEFT, "backend")  # older releases have backends of other names
            value = {key: each for key, each in value.items() if key not in free}
            yield from super().faults("attention_config", value)
        else:
            yield from super().faults(name, value)

    @model_validator(mode="after")
    def _fits_together(self) -> "VLLMEngineConfig":
        if self.speculative_model is not None and self.num_speculative_tokens is None:
            raise ValueError("speculative_model needs num_speculative_tokens")
        if self.speculative_model is not None and "speculative_config" in self.extras():
            raise ValueError("speculative_model and speculative_config exclude each other")
        if self.attention is not None and "attention_config" in self.extras():
            raise ValueError("attention and attention_config exclude each other; use the latter")
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that are set, as today's vLLM names them."""
        return of_vllm_today(self.given())


class VLLMSamplingConfig(EngineSection):
    """Sampling parameters of vLLM; they win over the decoder's, on vLLM alone."""

    study_path: ClassVar[str] = "vllm.sampling"


class VLLMBeamSearchConfig(Section):
    """Beam search in vLLM; excludes ``sampling``."""

    beam_width: int | None = Field(default=None, ge=1, le=1024, description="Beams.")
    length_penalty: float | None = Field(default=None, description="Beam length penalty.")
    early_stopping: bool | None = Field(default=None, description="Stop beams early.")
    max_tokens: Tokens | None = Field(default=None, description="In place of max_output_tokens.")


class VLLMConfig(Section):
    """Settings of the vllm backend."""

    engine: VLLMEngineConfig | None = Field(default=None, description="Engine arguments.")
    sampling: VLLMSamplingConfig | None = Field(default=None, description="Sampling.")
    beam_search: VLLMBeamSearchConfig | None = Field(default=None, description="Beam search.")

    @model_validator(mode="after")
    def _one_way_of_choosing(self) -> "VLLMConfig":
        if self.sampling is not None and self.beam_search is not None:
            raise ValueError("sampling and beam_search exclude each other; set one")
        return self
