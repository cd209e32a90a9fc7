"""Settings of TensorRT-LLM. A null leaves the engine's own default."""

from typing import Literal

from pydantic import Field

from llenergymeasure.config.section import Section


class TensorRTConfig(Section):
    """Settings of the tensorrt backend."""

    max_batch_size: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Most sequences at once."
    )
    tp_size: int | None = Field(default=None, ge=1, le=4096, description="Tensor parallel GPUs.")
    quantization: Literal["int8_sq", "int4_awq", "fp8"] | None = Field(
        default=None, description="Quantisation method."
    )
    engine_path: str | None = Field(
        default=None, min_length=1, description="Folder of an engine that is already built."
    )
