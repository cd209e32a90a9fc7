"""What SGLang judges of an experiment's settings without loading a model."""

from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs

from llenergymeasure.backends.sglang.arguments import engine_arguments, sampling_parameters
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import MAX_TOKENS
from llenergymeasure.workload.models.resolve import resolve_model


def validate(config: ExperimentConfig) -> None:
    """Let SGLang raise what it has against the settings; how long an answer is, requests say."""
    arguments = ServerArgs(**engine_arguments(config, resolve_model(config)))
    for step in ("resolve_once", "check_server_args"):  # not in every release
        getattr(arguments, step, lambda: None)()
    SamplingParams(**sampling_parameters(config, MAX_TOKENS)).verify(MAX_TOKENS)
