"""Settings of SGLang, under the engine's own names. A null leaves the engine's own default.

Every argument of the engine is taken, checked against its catalogue; those below are the ones
used most.
"""

from typing import ClassVar

from pydantic import Field

from llenergymeasure.config.catalogue.section import EngineSection
from llenergymeasure.config.section import Section


class SGLangEngineConfig(EngineSection):
    """Arguments of SGLang's engine."""

    study_path: ClassVar[str] = "sglang.engine"
    catalogue_of: ClassVar[tuple[str, tuple[str, ...]]] = ("sglang", ("engine",))

    mem_fraction_static: float | None = Field(
        default=None, gt=0, lt=1, description="Share of memory for weights and KV cache."
    )
    max_running_requests: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Most sequences at once."
    )
    max_prefill_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Most tokens in a prefill batch."
    )
    max_total_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Tokens the KV cache holds."
    )
    chunked_prefill_size: int | None = Field(
        default=None, ge=-1, le=1_000_000_000, description="Tokens in a prefill chunk; -1 is off."
    )
    context_length: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Longest context, in tokens."
    )
    tp_size: int | None = Field(default=None, ge=1, le=4096, description="Tensor parallel GPUs.")
    dp_size: int | None = Field(default=None, ge=1, le=4096, description="Data parallel copies.")
    pp_size: int | None = Field(default=None, ge=1, le=4096, description="Pipeline stages.")
    quantization: str | None = Field(
        default=None, min_length=1, description="Quantisation method.", examples=["fp8"]
    )
    kv_cache_dtype: str | None = Field(
        default=None, min_length=1, description="Data type of the KV cache.", examples=["fp8_e5m2"]
    )
    attention_backend: str | None = Field(
        default=None, min_length=1, description="Attention backend.", examples=["flashinfer"]
    )
    sampling_backend: str | None = Field(
        default=None, min_length=1, description="Sampling backend.", examples=["pytorch"]
    )
    grammar_backend: str | None = Field(
        default=None, min_length=1, description="Grammar backend.", examples=["none"]
    )
    disable_cuda_graph: bool | None = Field(default=None, description="No CUDA graphs.")
    enable_torch_compile: bool | None = Field(default=None, description="Use torch.compile.")
    disable_radix_cache: bool | None = Field(
        default=None, description="Do not reuse shared prefixes."
    )
    speculative_algorithm: str | None = Field(
        default=None, min_length=1, description="Speculative decoding.", examples=["EAGLE"]
    )
    speculative_draft_model_path: str | None = Field(
        default=None, min_length=1, description="Draft model."
    )
    speculative_num_draft_tokens: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Tokens the draft model guesses."
    )
    device: str | None = Field(
        default=None, min_length=1, description="Device.", examples=["cuda", "cpu"]
    )
    load_format: str | None = Field(
        default=None, min_length=1, description="How weights are loaded.", examples=["dummy"]
    )
    trust_remote_code: bool | None = Field(
        default=None, description="Run code that comes with the model; off unless asked for."
    )
    revision: str | None = Field(
        default=None, min_length=1, description="Revision of the model on the hub."
    )


class SGLangSamplingConfig(EngineSection):
    """Sampling parameters of SGLang; they win over the decoder's, on SGLang alone."""

    study_path: ClassVar[str] = "sglang.sampling"
    catalogue_of: ClassVar[tuple[str, tuple[str, ...]]] = ("sglang", ("sampling",))

    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens that came already."
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty by how often a token came."
    )
    ignore_eos: bool | None = Field(default=None, description="Go on past end of sequence.")
    n: int | None = Field(default=None, ge=1, le=10_000, description="Answers for each prompt.")


class SGLangConfig(Section):
    """Settings of the sglang backend."""

    engine: SGLangEngineConfig | None = Field(default=None, description="Engine arguments.")
    sampling: SGLangSamplingConfig | None = Field(default=None, description="Sampling.")
