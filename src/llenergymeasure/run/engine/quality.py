"""Quality of one run's engine, after its window: perplexity on texts, or a command's score."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llenergymeasure.backends.base import Engine, Scoring
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError, LlemError, Problem
from llenergymeasure.files import sha256
from llenergymeasure.processes import ChildError, completed, users_environment
from llenergymeasure.redact import excerpt
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.tokens import Tokenizer


def perplexity(
    engine: Engine, config: ExperimentConfig, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an engine's perplexity on the study's texts, or why there is none.

    The exponential of the mean negative log-likelihood of every token but each text's first
    (Jelinek and others, "Perplexity - a measure of the difficulty of speech recognition tasks",
    1977). Only runs with the same tokenizer compare.
    """
    path = Path(asked["texts"])
    if not isinstance(engine, Scoring):
        return {"perplexity_unavailable": f"{config.backend} gives no likelihoods of given text"}
    try:
        texts = _tokens(path, config, int(asked["max_text_tokens"]))
        likelihoods = [each for text in texts for each in engine.log_likelihoods(text)]
    except (LlemError, OSError, UnicodeDecodeError) as error:
        return {"perplexity_unavailable": str(error)}
    if not likelihoods or not all(math.isfinite(each) for each in likelihoods):
        return {"perplexity_unavailable": "the engine gave likelihoods that are no numbers"}
    return {
        "perplexity": math.exp(-math.fsum(likelihoods) / len(likelihoods)),
        "perplexity_tokens": len(likelihoods),
        "texts_sha256": sha256(path),
    }


def command_score(folder: RunFolder, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Run the study's judging command and return its score, or why there is none.

    What it prints goes to the run's log, which is this process's output.
    """
    command: Sequence[str] = asked["command"]
    told = {"command": list(command)}
    spec = json.loads(folder.spec.read_text())
    settings = folder.work / "experiment.json"
    settings.write_text(json.dumps(spec["config"], indent=1))
    try:
        done = completed(
            command,
            float(asked["timeout_seconds"]),
            environment=users_environment(LLEM_EXPERIMENT=str(settings)),
            keep_errors=False,  # into the run's log as they come, also of a command that hangs
            name="the command",
        )
    except ChildError as error:
        return {**told, "score_unavailable": str(error)}
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        return {**told, "score_unavailable": f"the command ended with {done.returncode}"}
    lines = done.stdout.strip().splitlines()
    last = excerpt(lines[-1], 200) if lines else "nothing"
    if counted := re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", last):
        correct, items = int(counted[1]), int(counted[2])
        if not 0 <= correct <= items or items == 0:
            return {**told, "score_unavailable": f"its last line is no share: {last}"}
        return {**told, "score": correct / items, "correct": correct, "items": items}
    try:
        score = float(last)
    except ValueError:
        return {**told, "score_unavailable": f"its last line is no number: {last}"}
    if not math.isfinite(score):
        return {**told, "score_unavailable": f"its last line is no finite number: {last}"}
    return {**told, "score": score}


def _tokens(path: Path, config: ExperimentConfig, most: int) -> list[list[int]]:
    """Return the token ids of each line; one token alone has no likelihood.

    Raises:
        ConfigurationError: no line is long enough, or the model has no tokenizer.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    trust = bool(config.pytorch and config.pytorch.trust_remote_code)
    tokenizer = Tokenizer(resolve_model(config), trust_remote_code=trust)
    records = [Record(number, str(path), line) for number, line in enumerate(lines, start=1)]
    texts = [ids[:most] for ids in tokenizer.encode(records)]
    long_enough = [ids for ids in texts if len(ids) > 1]
    if not long_enough:
        raise ConfigurationError(
            Problem("has no line of two tokens or more", key="quality.texts", found=str(path))
        )
    return long_enough
