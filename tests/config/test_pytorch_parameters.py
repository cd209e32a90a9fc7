"""Parameters of transformers under ``pytorch`` reach it where they belong."""

from llenergymeasure.backends.pytorch.passthrough import generation_arguments, loading_arguments
from llenergymeasure.config.experiment import ExperimentConfig


def test_loading_and_generation_each_get_theirs() -> None:
    config = ExperimentConfig.model_validate(
        {
            "model": "tiny-llama",
            "pytorch": {"batch_size": 2, "renormalize_logits": True, "use_safetensors": True},
            "passthrough_kwargs": {"low_cpu_mem_usage": True},
        }
    )
    assert generation_arguments(config) == {"renormalize_logits": True}
    assert loading_arguments(config) == {"use_safetensors": True, "low_cpu_mem_usage": True}


def test_passthrough_wins() -> None:
    config = ExperimentConfig.model_validate(
        {
            "model": "tiny-llama",
            "pytorch": {"guidance_scale": 1.5},
            "passthrough_kwargs": {"guidance_scale": 2.0},
        }
    )
    assert generation_arguments(config) == {"guidance_scale": 2.0}
