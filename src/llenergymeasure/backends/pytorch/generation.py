"""How the next token is chosen, and one batch from prompts to counted tokens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from llenergymeasure.backends.base import Completion
from llenergymeasure.backends.common import sampling_options
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.requests import Request
from llenergymeasure.workload.thinking import ThinkingMarks

_PADDING_ID = 0
"""Any valid id will do: the attention mask hides it."""


def generation_config(
    config: ExperimentConfig, max_new_tokens: int, eos_token_ids: Sequence[int]
) -> GenerationConfig:
    """Return transformers' settings for an experiment.

    The end of sequence is ignored where the study asks for answers of a fixed length, so that
    every run of a comparison writes exactly the tokens asked for.
    """
    settings = config.pytorch or PyTorchConfig()
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "eos_token_id": None,
        "pad_token_id": _PADDING_ID,
        "use_cache": settings.use_cache is not False,
        # Compilation is asked for with torch_compile alone, not by the kind of cache.
        "disable_compile": True,
        "do_sample": not config.decoder.greedy,
        **sampling_options(config.decoder, greedy={}),
    }
    min_new_tokens = config.fewest_tokens
    if min_new_tokens is not None and eos_token_ids:
        options["min_new_tokens"] = min(min_new_tokens, max_new_tokens)
        options["eos_token_id"] = list(eos_token_ids)
        options["pad_token_id"] = eos_token_ids[0]
    if settings.cache_implementation is not None:
        # transformers 5 takes a layer's window from the model in every static cache.
        is_sliding = settings.cache_implementation == "sliding_window"
        options["cache_implementation"] = "static" if is_sliding else settings.cache_implementation
    for name in (
        "num_beams",
        "early_stopping",
        "length_penalty",
        "no_repeat_ngram_size",
        "prompt_lookup_num_tokens",
    ):
        value = getattr(settings, name)
        if value is not None:
            options[name] = value
    return GenerationConfig(**options, **passthrough_arguments(config)[1])


def passthrough_arguments(config: ExperimentConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments a study hands to transformers as they are: for loading, for generation.

    They are the parameters under ``pytorch`` that have no field of their own, checked against
    what transformers takes when the study was read, and ``passthrough_kwargs``, unchecked, which
    win. Those that are fields of transformers' ``GenerationConfig`` are for generation.
    """
    extras = {} if config.pytorch is None else config.pytorch.extras()
    arguments = extras | (config.passthrough_kwargs or {})
    generation_fields = GenerationConfig().to_dict()
    generation = {name: arguments[name] for name in arguments if name in generation_fields}
    loading = {name: arguments[name] for name in arguments if name not in generation_fields}
    return loading, generation


class _StepTimes:
    """Stamps the moment each token of a batch is there; never asks to stop.

    The generation loop waits for the device after every token anyway, so waiting here once costs
    nothing. Waiting at every token would cost some: later ones are stamped when they are under way.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.monotonic_ns: list[int] = []
        self._synchronize = synchronize
        self._not_done: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        if not self.monotonic_ns:
            self._synchronize()
        self.monotonic_ns.append(time.monotonic_ns())
        if self._not_done is None or len(self._not_done) != len(input_ids):
            self._not_done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return self._not_done


NAN_MESSAGE = (
    "the model computed values that are not numbers (NaN): its weights are damaged, or "
    "overflow at this precision"
)


class _LastScores:
    """Keeps the scores of the latest token, to look at once when the batch is done.

    A value that is not a number stays one in the cache of keys and values, so the last token of
    a sequence shows it whenever it arose.
    """

    def __init__(self) -> None:
        self._scores: torch.Tensor | None = None

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._scores = scores
        return scores

    def has_nan(self) -> bool:
        return self._scores is not None and bool(torch.isnan(self._scores).any())


def generate_batch(
    model: Any,
    requests: Sequence[Request],
    options: GenerationConfig,
    device: torch.device,
    synchronize: Callable[[], None],
    marks: ThinkingMarks | None = None,
) -> list[Completion]:
    """Answer one batch; all its requests start and end together.

    The batch runs until its longest answer is done; what a shorter one writes beyond the tokens
    asked for is not counted.

    Raises:
        BackendError: the model computed something that is not a number.
    """
    start_ns = time.monotonic_ns()
    input_ids, mask = _pad_left(requests, device)
    steps = _StepTimes(synchronize)
    last_scores = _LastScores()
    try:
        sequences = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=options,
            logits_processor=LogitsProcessorList([last_scores]),
            stopping_criteria=StoppingCriteriaList([steps]),
        )
        synchronize()
    except RuntimeError as error:
        # Sampling refuses such numbers itself, in words that do not say what is wrong.
        if "probability tensor" in str(error):
            raise BackendError(NAN_MESSAGE) from error
        raise
    end_ns = time.monotonic_ns()
    if last_scores.has_nan():
        raise BackendError(NAN_MESSAGE)
    outputs = sequences[:, input_ids.shape[1] :].tolist()
    stop_ids = frozenset(options.eos_token_id or ())
    first_token_ns = steps.monotonic_ns[0] if steps.monotonic_ns else None
    completions = [
        _completion(request, tokens, stop_ids, (start_ns, first_token_ns, end_ns), marks)
        for request, tokens in zip(requests, outputs, strict=True)
    ]
    if len(steps.monotonic_ns) == max(completion.output_tokens for completion in completions):
        completions[0] = replace(completions[0], step_monotonic_ns=tuple(steps.monotonic_ns))
    return completions


def _pad_left(
    requests: Sequence[Request], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both of shape (requests, longest prompt)."""
    prompts = [list(request.prompt_token_ids) for request in requests]
    longest = max(map(len, prompts))
    ids = [[_PADDING_ID] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _completion(
    request: Request,
    tokens: list[int],
    stop_ids: frozenset[int],
    times_ns: tuple[int, int | None, int],
    marks: ThinkingMarks | None,
) -> Completion:
    start_ns, first_token_ns, end_ns = times_ns
    answer = tokens[: request.max_output_tokens]
    length = next((n for n, token in enumerate(answer, start=1) if token in stop_ids), None)
    answer = answer[:length]
    return Completion(
        index=request.index,
        input_tokens=len(request.prompt_token_ids),
        output_tokens=len(answer),
        thinking_tokens=None if marks is None else marks.count(request.prompt_token_ids, answer),
        start_monotonic_ns=start_ns,
        end_monotonic_ns=end_ns,
        first_token_monotonic_ns=first_token_ns,
        finish_reason="length" if length is None else "stop",
    )
