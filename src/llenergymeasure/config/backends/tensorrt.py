"""Settings of TensorRT-LLM. A null leaves the engine's own default."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.section import Count, Processes, Section, Text

_COMPILED_ARGUMENTS = frozenset({"build_config", "quant_config", "calib_config", "fast_build"})


class TensorRTEngineConfig(EngineSection):
    """Arguments of TensorRT-LLM's ``LLM``, under its own names."""

    study_path: ClassVar[str] = "tensorrt.engine"

    backend: Literal["pytorch", "tensorrt"] | None = Field(
        default=None,
        description="pytorch runs the model as it is, tensorrt compiles an engine first and keeps "
        "it. Default: tensorrt where a setting is one of compiled engines alone, else pytorch.",
    )


class TensorRTSamplingConfig(EngineSection):
    """Sampling parameters of TensorRT-LLM; they win over the decoder's, there alone."""

    study_path: ClassVar[str] = "tensorrt.sampling"


class TensorRTConfig(Section):
    """Settings of the tensorrt backend."""

    max_batch_size: Count | None = Field(default=None, description="Most sequences at once.")
    tp_size: Processes | None = Field(default=None, description="Tensor parallel GPUs.")
    quantization: Literal["int8_sq", "int4_awq", "fp8"] | None = Field(
        default=None, description="Quantisation method."
    )
    engine_path: Text | None = Field(
        default=None, description="Folder of an engine that is already built."
    )
    engine: TensorRTEngineConfig | None = Field(default=None, description="Engine arguments.")
    sampling: TensorRTSamplingConfig | None = Field(default=None, description="Sampling.")

    @property
    def compiled(self) -> bool:
        """Whether a compiled engine runs the model, and not PyTorch."""
        arguments = {} if self.engine is None else self.engine.explicit_values()
        if "backend" in arguments:
            return bool(arguments["backend"] == "tensorrt")
        return bool(self.quantization or self.engine_path or _COMPILED_ARGUMENTS & set(arguments))

    def _contradictions(self) -> Iterator[str]:
        if not self.compiled and (self.quantization or self.engine_path):
            yield "quantization and engine_path need engine.backend: tensorrt"
        engine_extras = self.engine.extras() if self.engine is not None else {}
        for name, engine_name in (
            ("max_batch_size", "max_batch_size"),
            ("tp_size", "tensor_parallel_size"),
            ("quantization", "quant_config"),
        ):
            if getattr(self, name) is not None and engine_name in engine_extras:
                yield f"{name} and engine.{engine_name} are the same setting; keep one"
