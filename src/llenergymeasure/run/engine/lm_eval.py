"""Tasks of lm-eval, answered by the engine that was measured: how many of its choices are right.

lm-eval asks for the likelihood of each choice after its question, which an engine gives that
scores text. Tasks that need generated text are refused with a reason. Source: EleutherAI,
lm-evaluation-harness, ``lm_eval.api.model.LM``.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llenergymeasure.backends.base import Engine, Scoring
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.quality import OWN_TASK
from llenergymeasure.errors import LlemError, Problem
from llenergymeasure.installation import install_command
from llenergymeasure.redact import excerpt
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.tokens import Tokenizer

_OWN_ITEMS = Path(__file__).with_name("small_task.jsonl")


class _NeedsTextError(LlemError):
    """A task asks for generated text."""


def task_score(
    engine: Engine, config: ExperimentConfig, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how many items of the study's tasks an engine answers right, or why none."""
    told = {"tasks": list(asked["tasks"])}
    if not isinstance(engine, Scoring):
        reason = f"{config.backend} gives no likelihoods of given text"
        return {**told, "score_unavailable": reason}
    trust = bool(config.pytorch and config.pytorch.trust_remote_code)
    try:
        import lm_eval

        tokenizer = Tokenizer(resolve_model(config), trust_remote_code=trust)
        found = lm_eval.simple_evaluate(
            model=_model(engine, tokenizer),
            tasks=[_own_task() if name == OWN_TASK else name for name in asked["tasks"]],
            limit=asked.get("task_items"),
            bootstrap_iters=0,
            log_samples=False,
        )
        correct, items = _counted(found)
    except Exception as error:  # a task is a program of its author: it raises what it likes
        return {**told, "score_unavailable": excerpt(f"{type(error).__name__}: {error}", 500)}
    if not items:
        return {**told, "score_unavailable": "no task counts right answers (acc)"}
    return {**told, "score": correct / items, "correct": correct, "items": items}


def check_tasks(asked: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield that what answers the study's tasks is not installed where its engine runs."""
    if asked.get("tasks") and find_spec("lm_eval") is None:
        yield Problem(
            f"needs lm-eval where the engine runs: {install_command('quality')}",
            key="quality.tasks",
        )


def _own_task() -> dict[str, Any]:
    """Return the task that ships with this package: 40 questions with four choices each."""
    from datasets import Dataset  # lm-eval needs it itself

    items = [json.loads(line) for line in _OWN_ITEMS.read_text().splitlines()]
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


def _counted(found: Mapping[str, Any]) -> tuple[int, int]:
    """Return right answers and items over all tasks; a group is the tasks that it holds."""
    correct = items = 0
    for name, samples in found["n-samples"].items():
        share = found["results"][name].get("acc,none")
        if share is None:
            return 0, 0
        correct += round(share * samples["effective"])
        items += samples["effective"]
    return correct, items


def _model(engine: Scoring, tokenizer: Tokenizer) -> Any:
    """Return an engine as lm-eval's model."""
    from lm_eval.api.model import LM

    def ids(text: str) -> list[int]:
        return tokenizer.encode([Record(0, "task", text)])[0]

    class Measured(LM):  # type: ignore[misc]
        """The engine that was measured."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """Return each continuation's log-likelihood, and False for being the likeliest."""
            return [(self._continued(*each.args), False) for each in requests]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """Return the log-likelihood of whole texts but their first token."""
            return [sum(engine.log_likelihoods(ids(each.args[0]))) for each in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:  # noqa: ARG002
            """Refuse."""
            raise _NeedsTextError("a task needs generated text; name tasks with choices")

        def _continued(self, context: str, continuation: str) -> float:
            # Blanks belong to the continuation, as in lm-eval's own models.
            kept = context.rstrip()
            whole = ids(context + continuation)
            count = len(whole) - len(ids(kept)) if kept else len(whole) - 1
            return sum(engine.log_likelihoods(whole)[-max(count, 1) :])

    return Measured()
