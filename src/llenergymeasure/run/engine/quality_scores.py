"""Quality of one run's engine, after its window: perplexity, tasks of lm-eval, a command's score.

lm-eval asks for the likelihood of each choice after its question, which an engine gives that
scores text. Tasks that need generated text are refused with a reason. Source: EleutherAI,
lm-evaluation-harness, ``lm_eval.api.model.LM``.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llenergymeasure.backends.base import Engine, TextScorer
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.quality import OWN_TASK
from llenergymeasure.errors import ConfigurationError, LlemError, Problem
from llenergymeasure.files import TEXT_LIMIT_BYTES, load_json, read_bytes, sha256, write_text
from llenergymeasure.installation import install_command
from llenergymeasure.processes import ChildError, run_to_end, user_environment
from llenergymeasure.redact import excerpt
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.tokens import Tokenizer

_SMALL_TASK_ITEMS = Path(__file__).with_name("small_task.jsonl")


def engine_quality(
    engine: Engine, config: ExperimentConfig, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the perplexity and the score of tasks that the study asks for."""
    quality: dict[str, Any] = {}
    if settings.get("texts") is not None:
        quality |= perplexity(engine, config, settings)
    if settings.get("tasks") is not None:
        quality |= task_score(engine, config, settings)
    return quality


def perplexity(
    engine: Engine, config: ExperimentConfig, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an engine's perplexity on the study's texts, or why there is none.

    The exponential of the mean negative log-likelihood of every token but each text's first
    (Jelinek and others, "Perplexity - a measure of the difficulty of speech recognition tasks",
    1977). Only runs with the same tokenizer compare.
    """
    path = Path(settings["texts"])
    if not isinstance(engine, TextScorer):
        return {"perplexity_unavailable": f"{config.backend} gives no likelihoods of given text"}
    try:
        texts = _encode_texts(path, config, int(settings["max_text_tokens"]))
        likelihoods = [likelihood for text in texts for likelihood in engine.log_likelihoods(text)]
    except Exception as error:  # also an engine's own errors: the measurement does not depend on it
        return {"perplexity_unavailable": excerpt(str(error) or type(error).__name__, 500)}
    if not likelihoods or not all(math.isfinite(likelihood) for likelihood in likelihoods):
        return {"perplexity_unavailable": "the engine gave likelihoods that are no numbers"}
    return {
        "perplexity": math.exp(-math.fsum(likelihoods) / len(likelihoods)),
        "perplexity_tokens": len(likelihoods),
        "texts_sha256": sha256(path),
    }


def command_score(folder: RunFolder, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run the study's judging command and return its score, or why there is none.

    Its output goes to the run's log, which is this process's output.
    """
    command: Sequence[str] = settings["command"]
    record = {"command": list(command)}
    spec = load_json(folder.spec)
    experiment_file = folder.work / "experiment.json"
    write_text(experiment_file, json.dumps(spec["config"], indent=1))
    try:
        result = run_to_end(
            command,
            float(settings["timeout_seconds"]),
            environment=user_environment(LLEM_EXPERIMENT=str(experiment_file)),
            keep_errors=False,  # into the run's log as they come, also of a command that hangs
            name="the command",
        )
    except ChildError as error:
        return {**record, "score_unavailable": str(error)}
    print(result.stdout, end="", flush=True)
    if result.returncode != 0:
        return {**record, "score_unavailable": f"the command ended with {result.returncode}"}
    lines = result.stdout.strip().splitlines()
    return {**record, **_parse_score(excerpt(lines[-1], 200) if lines else "nothing")}


def _parse_score(last_line: str) -> dict[str, Any]:
    """Return the score in a command's last line: a number, or a share such as ``17/20``."""
    if fraction := re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", last_line):
        correct, items = int(fraction[1]), int(fraction[2])
        if correct <= items and items:
            return {"score": correct / items, "correct": correct, "items": items}
    with contextlib.suppress(ValueError):
        if math.isfinite(score := float(last_line)):
            return {"score": score}
    return {"score_unavailable": f"its last line is no finite number and no share: {last_line}"}


def _encode_texts(path: Path, config: ExperimentConfig, max_tokens: int) -> list[list[int]]:
    """Return the token ids of each line; one token alone has no likelihood.

    Raises:
        ConfigurationError: no line is long enough, or the model has no tokenizer.
    """
    text = read_bytes(path, TEXT_LIMIT_BYTES).decode()
    lines = [line for line in text.splitlines() if line.strip()]
    tokenizer = Tokenizer(config)
    records = [Record(number, str(path), line) for number, line in enumerate(lines, start=1)]
    texts = [ids[:max_tokens] for ids in tokenizer.encode(records)]
    long_enough = [ids for ids in texts if len(ids) > 1]
    if not long_enough:
        raise ConfigurationError(
            Problem("has no line of two tokens or more", key="quality.texts", found=str(path))
        )
    return long_enough


class _NeedsTextError(LlemError):
    """A task asks for generated text."""


def task_score(
    engine: Engine, config: ExperimentConfig, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how many items of the study's tasks an engine answers right, or why none."""
    record = {"tasks": list(settings["tasks"])}
    if not isinstance(engine, TextScorer):
        reason = f"{config.backend} gives no likelihoods of given text"
        return {**record, "score_unavailable": reason}
    try:
        import lm_eval

        results = lm_eval.simple_evaluate(
            model=_lm_eval_model(engine, Tokenizer(config)),
            tasks=[_small_task() if name == OWN_TASK else name for name in settings["tasks"]],
            limit=settings.get("task_items"),
            bootstrap_iters=0,
            log_samples=False,
        )
        correct, items = _count_correct(results)
    except Exception as error:  # a task is a program of its author and may raise anything
        return {**record, "score_unavailable": excerpt(f"{type(error).__name__}: {error}", 500)}
    if not items:
        return {**record, "score_unavailable": "no task counts right answers (acc)"}
    return {**record, "score": correct / items, "correct": correct, "items": items}


def check_tasks(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem if the study has tasks and lm-eval is not installed here."""
    if settings.get("tasks") and find_spec("lm_eval") is None:
        yield Problem(
            f"needs lm-eval where the engine runs: {install_command('quality')}",
            key="quality.tasks",
        )


def _small_task() -> dict[str, Any]:
    """Return the task that ships with this package: 40 questions with four choices each."""
    from datasets import Dataset  # lm-eval needs it itself

    items = [json.loads(line) for line in _SMALL_TASK_ITEMS.read_text().splitlines()]
    return {
        "task": OWN_TASK,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(items)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _count_correct(results: Mapping[str, Any]) -> tuple[int, int]:
    """Return right answers and items over all tasks; a group is the tasks that it holds."""
    correct = items = 0
    for name, samples in results["n-samples"].items():
        share = results["results"][name].get("acc,none")
        if share is None:
            return 0, 0
        correct += round(share * samples["effective"])
        items += samples["effective"]
    return correct, items


def _lm_eval_model(engine: TextScorer, tokenizer: Tokenizer) -> Any:
    """Return an engine as lm-eval's model."""
    from lm_eval.api.model import LM

    def encode(text: str) -> list[int]:
        return tokenizer.encode([Record(0, "task", text)])[0]

    class EngineModel(LM):  # type: ignore[misc]
        """The engine that was measured."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """Return each continuation's log-likelihood, and False for being the likeliest."""
            return [(self._log_likelihood(*request.args), False) for request in requests]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """Return the log-likelihood of whole texts but their first token."""
            return [sum(engine.log_likelihoods(encode(request.args[0]))) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:  # noqa: ARG002
            """Refuse."""
            raise _NeedsTextError("a task needs generated text; name tasks with choices")

        def _log_likelihood(self, context: str, continuation: str) -> float:
            # Blanks belong to the continuation, as in lm-eval's own models.
            prefix = context.rstrip()
            token_ids = encode(context + continuation)
            count = len(token_ids) - len(encode(prefix)) if prefix else len(token_ids) - 1
            return sum(engine.log_likelihoods(token_ids)[-max(count, 1) :])

    return EngineModel()
