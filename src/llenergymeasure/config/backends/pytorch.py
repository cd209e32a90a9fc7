"""Settings of transformers on PyTorch. A null leaves the engine's own default.

Whatever ``from_pretrained`` and ``GenerationConfig`` take is taken, checked as they
describe it; those below are ours, those of the original tool and those used most.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.section import Count, Processes, Text


class PyTorchConfig(EngineSection):
    """Settings of the pytorch backend."""

    study_path: ClassVar[str] = "pytorch"

    batch_size: Count | None = Field(default=None, description="Prompts in a batch; default 1.")
    attn_implementation: (
        Literal["sdpa", "flash_attention_2", "flash_attention_3", "eager"] | None
    ) = Field(default=None, description="Attention kernel.")
    torch_compile: bool | None = Field(default=None, description="Compile with torch.compile.")
    torch_compile_mode: Text | None = Field(
        default=None,
        description="Mode of torch.compile.",
        examples=["default", "reduce-overhead", "max-autotune"],
    )
    torch_compile_backend: Text | None = Field(
        default=None, description="Backend of torch.compile.", examples=["inductor"]
    )
    load_in_4bit: bool | None = Field(default=None, description="Quantise to 4 bits on loading.")
    load_in_8bit: bool | None = Field(default=None, description="Quantise to 8 bits on loading.")
    bnb_4bit_compute_dtype: Literal["float16", "bfloat16", "float32"] | None = Field(
        default=None, description="Data type that 4-bit weights are computed in."
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] | None = Field(
        default=None, description="4-bit data type."
    )
    bnb_4bit_use_double_quant: bool | None = Field(
        default=None, description="Quantise the 4-bit scales too."
    )
    use_cache: bool | None = Field(default=None, description="Keep keys and values (KV cache).")
    cache_implementation: Literal["static", "offloaded_static", "sliding_window"] | None = Field(
        default=None, description="Kind of KV cache."
    )
    num_beams: int | None = Field(default=None, ge=1, le=1024, description="Beams; 1 is none.")
    early_stopping: bool | None = Field(default=None, description="Stop beams early.")
    length_penalty: float | None = Field(default=None, description="Beam length penalty.")
    no_repeat_ngram_size: int | None = Field(
        default=None, ge=0, le=1_000_000, description="No n-gram of this size comes twice; 0 off."
    )
    prompt_lookup_num_tokens: Count | None = Field(
        default=None, description="Tokens to guess from the prompt."
    )
    device_map: Text | None = Field(
        default=None, description="Device placement.", examples=["auto", "cuda:0"]
    )
    max_memory: dict[str, str | int] | None = Field(
        default=None,
        description="Most memory per device.",
        examples=[{"0": "20GiB", "cpu": "60GiB"}],
    )
    revision: Text | None = Field(default=None, description="Revision of the model on the hub.")
    trust_remote_code: bool | None = Field(
        default=None, description="Run code that comes with the model; off unless asked for."
    )
    num_processes: Processes | None = Field(
        default=None, description="Processes that share the work, a device each."
    )
    tensor_parallel_size: Processes | None = Field(
        default=None,
        description="Processes that hold a slice of the model each and compute every prompt "
        "together, a device each.",
    )
    num_threads: Processes | None = Field(
        default=None,
        description="CPU threads that compute. Default: 1 on a GPU and for models below 100 "
        "million parameters, else the physical cores.",
    )

    @classmethod
    def _prepare(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        memory = data.get("max_memory")
        if isinstance(memory, dict):  # by the numbers of devices
            data = {**data, "max_memory": {str(key): value for key, value in memory.items()}}
        return super()._prepare(data)

    def _contradictions(self) -> Iterator[str]:
        if self.load_in_4bit and self.load_in_8bit:
            yield "load_in_4bit and load_in_8bit exclude each other; set one"
        if not self.load_in_4bit:
            for name in ("bnb_4bit_compute_dtype", "bnb_4bit_quant_type"):
                if getattr(self, name) is not None:
                    yield f"{name} needs load_in_4bit: true"
            if self.bnb_4bit_use_double_quant:
                yield "bnb_4bit_use_double_quant needs load_in_4bit: true"
        if not self.torch_compile:
            for name in ("torch_compile_mode", "torch_compile_backend"):
                if getattr(self, name) is not None:
                    yield f"{name} needs torch_compile: true"
        if self.use_cache is False and self.cache_implementation is not None:
            yield "cache_implementation needs use_cache, which is false"
