"""What vLLM says of an experiment's settings, asked without loading a model."""

from pydantic import ValidationError
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs

from llenergymeasure.backends.vllm.arguments import engine_arguments, given_sampling
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.workload.models.resolve import resolve_model


def refusal(config: ExperimentConfig) -> str | None:
    """Return vLLM's own words, or None if it takes the settings."""
    arguments = engine_arguments(config, resolve_model(config))
    try:
        EngineArgs(**arguments).create_engine_config()
        SamplingParams(**given_sampling(config))
    except ValidationError as error:
        return "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
    except (ValueError, TypeError, NotImplementedError) as error:
        return str(error)
    except Exception:  # not of the settings: a driver, a download, a version that differs
        return None
    return None
