"""What vLLM says of an experiment's settings, asked without loading a model."""

from pydantic import ValidationError
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs

from llenergymeasure.backends.common import given_sampling
from llenergymeasure.backends.vllm.arguments import engine_arguments
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import LlemError
from llenergymeasure.workload.models.resolve import resolve_model


def refusal(config: ExperimentConfig) -> str | None:
    """Return vLLM's own words, or None if it takes the settings.

    Raises:
        BackendError: the model is not here.
    """
    try:
        _ask(config)
    except LlemError:
        raise
    except OSError:
        return None  # A hub or a disk that does not answer judges no setting.
    except ValidationError as error:
        return "; ".join(str(each["msg"]).removeprefix("Value error, ") for each in error.errors())
    except (ValueError, TypeError, NotImplementedError) as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}" if _takes_its_defaults(config) else None
    return None


def _takes_its_defaults(config: ExperimentConfig) -> bool:
    """Whether vLLM takes an experiment without what the study sets of its parameters.

    Where it does not, they are not to blame: a driver, a download, a version that differs.
    """
    try:
        _ask(config.model_copy(update={"vllm": None, "passthrough_kwargs": None}))
    except Exception:
        return False
    return True


def _ask(config: ExperimentConfig) -> None:
    EngineArgs(**engine_arguments(config, resolve_model(config))).create_engine_config()
    SamplingParams(**given_sampling(config))
