"""How the next token is chosen, and one batch from prompts to counted tokens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from llenergymeasure.backends.base import Completion
from llenergymeasure.backends.common import sampling_choice
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
        **sampling_choice(config.decoder, greedy={}),
    }
    least = config.fewest_tokens
    if least is not None and eos_token_ids:
        options["min_new_tokens"] = min(least, max_new_tokens)
        options["eos_token_id"] = list(eos_token_ids)
        options["pad_token_id"] = eos_token_ids[0]
    if settings.cache_implementation is not None:
        # transformers 5 takes a layer's window from the model in every static cache.
        windowed = settings.cache_implementation == "sliding_window"
        options["cache_implementation"] = "static" if windowed else settings.cache_implementation
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
    return GenerationConfig(**options, **passed_on(config)[1])


def passed_on(config: ExperimentConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments a study hands to transformers as they are: for loading, for generation.

    They are the parameters under ``pytorch`` that have no field of their own, checked against
    what transformers takes when the study was read, and ``passthrough_kwargs``, unchecked, which
    win. Those that are fields of transformers' ``GenerationConfig`` are for generation.
    """
    extras = {} if config.pytorch is None else config.pytorch.extras()
    known = GenerationConfig().to_dict()
    parts: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for name, value in (extras | (config.passthrough_kwargs or {})).items():
        parts[name in known][name] = value
    return parts


class _Steps:
    """Stamps the moment each token of a batch is there; never asks to stop.

    The generation loop waits for the device after every token anyway, so waiting here once costs
    nothing. Waiting at every token would cost some: later ones are stamped when they are under way.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self.monotonic_ns: list[int] = []
        self._synchronize = synchronize
        self._go_on: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        if not self.monotonic_ns:
            self._synchronize()
        self.monotonic_ns.append(time.monotonic_ns())
        if self._go_on is None or len(self._go_on) != len(input_ids):
            self._go_on = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return self._go_on


NOT_A_NUMBER = (
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

    def not_a_number(self) -> bool:
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
    start = time.monotonic_ns()
    input_ids, mask = _left_padded(requests, device)
    steps = _Steps(synchronize)
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
            raise BackendError(NOT_A_NUMBER) from error
        raise
    end = time.monotonic_ns()
    if last_scores.not_a_number():
        raise BackendError(NOT_A_NUMBER)
    written = sequences[:, input_ids.shape[1] :].tolist()
    stops = frozenset(options.eos_token_id or ())
    first = steps.monotonic_ns[0] if steps.monotonic_ns else None
    answers = [
        _completion(request, tokens, stops, (start, first, end), marks)
        for request, tokens in zip(requests, written, strict=True)
    ]
    if len(steps.monotonic_ns) == max(answer.output_tokens for answer in answers):
        answers[0] = replace(answers[0], step_monotonic_ns=tuple(steps.monotonic_ns))
    return answers


def _left_padded(
    requests: Sequence[Request], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both of shape (requests, longest prompt)."""
    longest = max(len(request.prompt_token_ids) for request in requests)
    ids = [
        [_PADDING_ID] * (longest - len(request.prompt_token_ids)) + list(request.prompt_token_ids)
        for request in requests
    ]
    mask = [
        [0] * (longest - len(request.prompt_token_ids)) + [1] * len(request.prompt_token_ids)
        for request in requests
    ]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _completion(
    request: Request,
    tokens: list[int],
    stops: frozenset[int],
    times: tuple[int, int | None, int],
    marks: ThinkingMarks | None,
) -> Completion:
    start, first, end = times
    answer = tokens[: request.max_output_tokens]
    stop = next((place for place, token in enumerate(answer, start=1) if token in stops), None)
    answer = answer[:stop]
    return Completion(
        index=request.index,
        input_tokens=len(request.prompt_token_ids),
        output_tokens=len(answer),
        thinking_tokens=None if marks is None else marks.count(request.prompt_token_ids, answer),
        start_monotonic_ns=start,
        end_monotonic_ns=end,
        first_token_monotonic_ns=first,
        finish_reason="length" if stop is None else "stop",
    )
