"""Settings of SGLang, under the engine's own names. A null leaves the engine's own default."""

from typing import ClassVar

from pydantic import Field

from llenergymeasure.config.engine_parameters.section import EngineSection
from llenergymeasure.config.section import Section


class SGLangEngineConfig(EngineSection):
    """Arguments of SGLang's engine, all of which are taken as it describes them."""

    study_path: ClassVar[str] = "sglang.engine"


class SGLangSamplingConfig(EngineSection):
    """Sampling parameters of SGLang; they win over the decoder's, on SGLang alone."""

    study_path: ClassVar[str] = "sglang.sampling"


class SGLangConfig(Section):
    """Settings of the sglang backend."""

    engine: SGLangEngineConfig | None = Field(default=None, description="Engine arguments.")
    sampling: SGLangSamplingConfig | None = Field(default=None, description="Sampling.")
