"""Parameters of transformers under ``pytorch`` reach it where they belong."""

import pytest

from llenergymeasure.config.experiment import ExperimentConfig

generation_module = pytest.importorskip("llenergymeasure.backends.pytorch.generation")


def test_loading_and_generation_each_get_theirs_and_passthrough_wins() -> None:
    config = ExperimentConfig.model_validate(
        {
            "model": "tiny-llama",
            "pytorch": {
                "batch_size": 2,
                "renormalize_logits": True,
                "use_safetensors": True,
                "guidance_scale": 1.5,
            },
            "passthrough_kwargs": {"low_cpu_mem_usage": True, "guidance_scale": 2.0},
        }
    )
    loading, generation = generation_module.passthrough_arguments(config)
    assert generation == {"renormalize_logits": True, "guidance_scale": 2.0}
    assert loading == {"use_safetensors": True, "low_cpu_mem_usage": True}
