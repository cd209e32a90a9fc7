"""Settings of vLLM, under the engine's own names. A null leaves the engine's own default.

Every parameter of the engine is taken as it describes it; those below are of older releases.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.old_names import current_vllm_arguments
from llenergymeasure.config.section import Count, Section, Text
from llenergymeasure.config.serving import Tokens


class VLLMAttentionConfig(Section):
    """How vLLM computes attention (its ``AttentionConfig``)."""

    backend: Text | None = Field(
        default=None, description="Attention backend.", examples=["FLASH_ATTN"]
    )
    flash_attn_version: int | None = Field(
        default=None, ge=2, le=4, description="Version of FlashAttention."
    )
    flash_attn_max_num_splits_for_cuda_graph: Count | None = Field(
        default=None, description="Most splits under CUDA graphs."
    )
    use_prefill_decode_attention: bool | None = Field(
        default=None, description="Separate kernels for prefill and decode."
    )
    use_prefill_query_quantization: bool | None = Field(
        default=None, description="Quantise queries in prefill."
    )
    use_cudnn_prefill: bool | None = Field(default=None, description="Prefill with cuDNN.")
    use_trtllm_attention: bool | None = Field(
        default=None, description="TensorRT-LLM's attention in FlashInfer."
    )
    use_trtllm_ragged_deepseek_prefill: bool | None = Field(
        default=None, description="TensorRT-LLM's ragged prefill for DeepSeek."
    )
    disable_flashinfer_prefill: bool | None = Field(
        default=None, description="No FlashInfer in prefill."
    )
    disable_flashinfer_q_quantization: bool | None = Field(
        default=None, description="Queries stay unquantised under an fp8 KV cache."
    )


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
    attention: VLLMAttentionConfig | None = Field(default=None, description="Attention.")

    def _contradictions(self) -> Iterator[str]:
        if self.speculative_model is not None and self.num_speculative_tokens is None:
            yield "speculative_model needs num_speculative_tokens"
        if self.speculative_model is not None and "speculative_config" in self.extras():
            yield "speculative_model and speculative_config exclude each other"
        if self.attention is not None and "attention_config" in self.extras():
            yield "attention and attention_config exclude each other; use the latter"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that are set, as today's vLLM names them."""
        return current_vllm_arguments(self.explicit_values())


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

    def _contradictions(self) -> Iterator[str]:
        if self.sampling is not None and self.beam_search is not None:
            yield "sampling and beam_search exclude each other; set one"
