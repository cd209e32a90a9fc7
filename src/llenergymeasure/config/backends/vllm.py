"""Settings of vLLM, under the engine's own names. A null leaves the engine's own default.

Every argument of the engine is taken, checked against its catalogue; those below are the ones of
the original tool and those used most.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from llenergymeasure.config.catalogue.section import EngineSection
from llenergymeasure.config.section import Section


class VLLMAttentionConfig(Section):
    """How vLLM computes attention (its ``AttentionConfig``)."""

    backend: str | None = Field(
        default=None, min_length=1, description="Attention backend.", examples=["FLASH_ATTN"]
    )
    flash_attn_version: int | None = Field(
        default=None, ge=2, le=4, description="Version of FlashAttention."
    )
    flash_attn_max_num_splits_for_cuda_graph: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Most splits under CUDA graphs."
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


ATTENTION_LEFT = (
    "use_prefill_decode_attention",
    "use_cudnn_prefill",
    "use_trtllm_ragged_deepseek_prefill",
    "disable_flashinfer_prefill",
)
"""Fields of ``attention`` that newer vLLM has no place for."""


class VLLMEngineConfig(EngineSection):
    """Arguments of vLLM's engine."""

    study_path: ClassVar[str] = "vllm.engine"
    catalogue_of: ClassVar[tuple[str, tuple[str, ...]]] = ("vllm", ("engine",))

    gpu_memory_utilization: float | None = Field(
        default=None, ge=0, lt=1, description="Share of the GPU's memory vLLM may take."
    )
    swap_space: float | None = Field(
        default=None, ge=0, description="CPU swap in GiB; left newer vLLM."
    )
    cpu_offload_gb: float | None = Field(
        default=None, ge=0, description="Weights kept in CPU memory, in GiB."
    )
    block_size: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Tokens in a KV cache block.",
        examples=[16, 32],
    )
    kv_cache_dtype: str | None = Field(
        default=None, min_length=1, description="Data type of the KV cache.", examples=["fp8"]
    )
    enforce_eager: bool | None = Field(default=None, description="No CUDA graphs.")
    enable_chunked_prefill: bool | None = Field(default=None, description="Prefill in chunks.")
    max_num_seqs: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Most sequences in a step."
    )
    max_num_batched_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Most tokens in a step."
    )
    max_model_len: int | None = Field(
        default=None,
        ge=-1,
        le=1_000_000_000,
        description="Longest context, in tokens; -1 takes the longest that fits into memory.",
    )
    tensor_parallel_size: int | None = Field(
        default=None, ge=1, le=4096, description="GPUs a layer is split over."
    )
    pipeline_parallel_size: int | None = Field(
        default=None, ge=1, le=4096, description="Stages the layers are split into."
    )
    enable_prefix_caching: bool | None = Field(default=None, description="Reuse shared prefixes.")
    quantization: str | None = Field(
        default=None, min_length=1, description="Quantisation method.", examples=["awq", "fp8"]
    )
    speculative_model: str | None = Field(
        default=None,
        min_length=1,
        description="Draft model; newer vLLM takes it in speculative_config.",
    )
    num_speculative_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Tokens the draft model guesses."
    )
    speculative_config: dict[str, Any] | None = Field(
        default=None, description="Speculative decoding, as vLLM takes it."
    )
    offload_group_size: int | None = Field(
        default=None, ge=0, le=1_000_000, description="Layers in an offload group."
    )
    offload_num_in_group: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Layers offloaded of each group."
    )
    offload_prefetch_step: int | None = Field(
        default=None, ge=0, le=1_000_000, description="Layers fetched ahead."
    )
    offload_params: list[str] | None = Field(
        default=None, description="Parts of parameter names to offload."
    )
    disable_custom_all_reduce: bool | None = Field(
        default=None, description="Use NCCL's all-reduce instead of vLLM's."
    )
    kv_cache_memory_bytes: int | None = Field(
        default=None, ge=1, le=2**63 - 1, description="Memory of the KV cache, in bytes."
    )
    compilation_config: dict[str, Any] | None = Field(
        default=None, description="Compilation, as vLLM takes it."
    )
    attention: VLLMAttentionConfig | None = Field(default=None, description="Attention.")
    load_format: str | None = Field(
        default=None, min_length=1, description="How weights are loaded.", examples=["dummy"]
    )
    trust_remote_code: bool | None = Field(
        default=None, description="Run code that comes with the model; off unless asked for."
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Revision of the model on the hub."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "VLLMEngineConfig":
        if self.speculative_model is not None and self.num_speculative_tokens is None:
            raise ValueError("speculative_model needs num_speculative_tokens")
        if self.speculative_model is not None and self.speculative_config is not None:
            raise ValueError("speculative_model and speculative_config exclude each other")
        if self.attention is not None and "attention_config" in self.extras():
            raise ValueError("attention and attention_config exclude each other; use the latter")
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that are set, as the catalogue's release of vLLM names them.

        What older releases called otherwise is put under its new name, and what has no successor
        is left out: ``config.retired`` tells of both when the study is read.
        """
        given = self.given()
        given.pop("swap_space", None)
        draft = given.pop("speculative_model", None)
        tokens = given.pop("num_speculative_tokens", None)
        if draft is not None:
            given["speculative_config"] = {"model": draft, "num_speculative_tokens": tokens}
        attention = given.pop("attention", None)
        if attention is not None:
            kept = {key: value for key, value in attention.items() if key not in ATTENTION_LEFT}
            if kept:
                given["attention_config"] = kept
        compilation = given.get("compilation_config")
        if isinstance(compilation, Mapping) and "level" in compilation:
            rest = {key: value for key, value in compilation.items() if key != "level"}
            given["compilation_config"] = {"mode": compilation["level"], **rest}
        return given


class VLLMSamplingConfig(EngineSection):
    """Sampling parameters of vLLM; they win over the decoder's, on vLLM alone."""

    study_path: ClassVar[str] = "vllm.sampling"
    catalogue_of: ClassVar[tuple[str, tuple[str, ...]]] = ("vllm", ("sampling",))

    max_tokens: int | None = Field(
        default=None, ge=1, le=10_000_000, description="In place of max_output_tokens."
    )
    min_tokens: int | None = Field(
        default=None, ge=0, le=10_000_000, description="Fewest tokens before a stop token counts."
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens that came already."
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty by how often a token came."
    )
    ignore_eos: bool | None = Field(default=None, description="Go on past end of sequence.")
    n: int | None = Field(default=None, ge=1, le=10_000, description="Answers for each prompt.")


class VLLMBeamSearchConfig(Section):
    """Beam search in vLLM; excludes ``sampling``."""

    beam_width: int | None = Field(default=None, ge=1, le=1024, description="Beams.")
    length_penalty: float | None = Field(default=None, description="Beam length penalty.")
    early_stopping: bool | None = Field(default=None, description="Stop beams early.")
    max_tokens: int | None = Field(
        default=None, ge=1, le=10_000_000, description="In place of max_output_tokens."
    )


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
