"""``llem init``: whatever is answered, the study it writes can be planned."""

from pathlib import Path

import pytest

from cli.commands import Call
from llenergymeasure.cli.init import QUESTIONS, study_text
from llenergymeasure.config.strict_yaml import parse
from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from support.terminal import at_a_terminal

DEFAULTS = {each.key: each.default for each in QUESTIONS}


def test_without_asking(tmp_path: Path, call: Call) -> None:
    result = call("init", "--defaults")
    assert result.code == 0, result.err
    assert "2 experiments, 3 cycles" in result.out
    assert len(make_plan(load_study(tmp_path / "study.yaml")).runs) == 6
    assert call("init", "--defaults").code == 2
    assert call("init", "--defaults", "--force").code == 0
    assert call("init", "1e3.yaml", "--defaults").code == 0
    assert load_study(tmp_path / "1e3.yaml").name == "1e3"


@pytest.mark.parametrize(
    "answers",
    [
        {"backend": "vllm"},
        {"backend": "sglang", "model": "org/some-model"},
        {"backend": "tensorrt"},
        {"model": "Llama-3.1-8B"},
        {"precisions": "fp32,bf16 , fp16", "batches": "1"},
        {"cycles": "1", "n": "1", "output": "1"},
    ],
    ids=str,
)
def test_every_answer_makes_a_study_that_plans(answers: dict[str, str]) -> None:
    text = study_text({**DEFAULTS, **answers}, Path("study.yaml"))
    assert make_plan(study_from_mapping(parse(text.encode())[0])).runs


def test_a_person_is_asked_and_told_of_mistakes(tmp_path: Path) -> None:
    answers = iter(["", "pytroch", "", "many", "4", "8", "fp32, bf16", "2, 4", "2"])
    code, said = at_a_terminal(
        tmp_path,
        *("init", "asked.yaml"),
        answer=lambda said: f"{next(answers)}\n" if said.endswith("]: ") else None,
    )
    assert code == 0, said
    assert "did you mean pytorch?" in " ".join(said.split())
    assert "must be a whole number" in said
    study = load_study(tmp_path / "asked.yaml")
    assert (len(study.experiments), study.n_cycles) == (4, 2)
    assert {experiment.config["n"] for experiment in study.experiments} == {4}
