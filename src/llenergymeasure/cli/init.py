"""``llem init``: a few questions, and a commented study that passes ``llem plan``."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from llenergymeasure.config.backends.facts import parameter_names
from llenergymeasure.config.strict_yaml import parse
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.files import write_text
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from llenergymeasure.workload.models.known import KNOWN, TINY_LLAMA

TEMPLATE = """\
# What to compare; `llem plan {file}` shows what would run, `llem run {file}` runs it.
name: {name}

# tiny-llama is made on the spot; else a folder, or a model's id on the Hugging Face hub.
model: {model}
{weights}
# Engines; several are compared: [pytorch, vllm].
backend: {backend}

# Prompts: synthetic of fixed length, a file (.jsonl, .csv, .parquet, .txt), or a data set's id.
dataset: synthetic
n: {n}                       # how many prompts
max_input_tokens: {input}
max_output_tokens: {output}

# auto: with care where a sensor measures, quickly where energy can only be estimated.
protocol: auto

# Every combination is an experiment. A key that begins with an engine is for that engine alone.
sweep:
  precision: {precisions}
{batch}
execution:
  n_cycles: {cycles}              # repetitions of each experiment: error bars need at least 3
  cycle_order: shuffled    # so that slow changes of the machine favour none of them
"""

WEIGHTS = """\
# random: only the architecture is needed, and no download. Energy does not depend on the values.
weights: random
"""


class Question(NamedTuple):
    """One thing to ask: what the answer is for, the question, the answer if none is given."""

    key: str
    text: str
    default: str


QUESTIONS = (
    Question("model", "Model (tiny-llama, a folder, or an id on the hub)", "tiny-llama"),
    Question("backend", "Engine (pytorch, vllm or sglang)", "pytorch"),
    Question("n", "Number of prompts", "32"),
    Question("output", "Tokens to write for each", "64"),
    Question("precisions", "Precisions to compare, with commas between (fp32, bf16, fp16)", "bf16"),
    Question("batches", "Batch sizes to compare, with commas between", "1, 8"),
    Question("cycles", "Repetitions of each", "3"),
)

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def init(
    path: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="where to write it")] = Path(
        "study.yaml"
    ),
    defaults: Annotated[bool, typer.Option("--defaults", help="ask nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="overwrite an existing file")] = False,
) -> None:
    """Write a study of your own from a few questions."""
    if path.exists() and not force:
        raise ConfigurationError(Problem("exists already; --force overwrites it", file=path))
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigurationError(Problem("must end in .yaml", file=path))
    if not defaults and not sys.stdin.isatty():
        raise ConfigurationError(
            "nobody can be asked here: standard input is no terminal; use --defaults"
        )
    answers = {question.key: question.default for question in QUESTIONS} if defaults else _ask_all()
    text = study_text(answers, path)
    study_from_mapping(parse(text.encode(), path)[0], path)
    write_text(path, text)
    study = load_study(path)
    print(f"{path}: {len(study.experiments)} experiments, {study.n_cycles} cycles each")
    file = shlex.quote(str(path))
    print(f"Next: llem plan {file}, then llem run {file}")


def study_text(answers: Mapping[str, str], path: Path) -> str:
    """Return the study that the answers describe."""
    backend = answers["backend"]
    key = parameter_names(backend).requests_at_once
    return TEMPLATE.format(
        file=shlex.quote(str(path)),
        name=path.stem if _PLAIN.fullmatch(path.stem) else json.dumps(path.stem),
        model=answers["model"],
        weights=WEIGHTS if answers["model"] in set(KNOWN) - {TINY_LLAMA} else "",
        backend=backend,
        n=answers["n"],
        input=64,
        output=answers["output"],
        precisions=_yaml_list(answers["precisions"]),
        batch=f"  {key}: {_yaml_list(answers['batches'])}\n" if key else "",
        cycles=answers["cycles"],
    )


def _ask_all() -> dict[str, str]:
    """Return the answers of the person at the terminal, each checked before the next is asked."""
    print("Enter takes what is in brackets.")
    answers = {question.key: question.default for question in QUESTIONS}
    for question in QUESTIONS:
        answers[question.key] = _ask(question, answers, input)
    return answers


def _ask(question: Question, answers: Mapping[str, str], read: Callable[[str], str]) -> str:
    while True:
        answer = read(f"{question.text} [{question.default}]: ").strip() or question.default
        text = study_text({**answers, question.key: answer}, Path("study.yaml"))
        try:
            study_from_mapping(parse(text.encode())[0])
        except ConfigurationError as error:
            print(f"  {error.problems[0]}", file=sys.stderr)
        else:
            return answer


def _yaml_list(text: str) -> str:
    return f"[{', '.join(part.strip() for part in text.split(',') if part.strip())}]"
