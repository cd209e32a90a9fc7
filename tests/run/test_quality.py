"""Quality beside energy: perplexity on texts, and what a command of the study's own says."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.quality import OWN_TASK
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.files import sha256
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.engine.quality_scores import (
    _SMALL_TASK_ITEMS,
    command_score,
    perplexity,
    task_score,
)
from llenergymeasure.run.result.build_result import quality_record
from llenergymeasure.workload.datasets.record import Record
from llenergymeasure.workload.load_study import load_study
from llenergymeasure.workload.tokens import Tokenizer
from support.studies import ROOT, living, llem, plan_of, wait_for, write_study

TEXTS = "def main():\n\nreturn the value of self\nclass Foo(object):\n"


@pytest.fixture(scope="module")
def loaded() -> Any:
    config = ExperimentConfig.model_validate({"model": "tiny-llama", "precision": "fp32"})
    engine = registry.get("pytorch").load(config)
    yield engine, config
    engine.close()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text(TEXTS)
    return path


def test_perplexity_is_that_of_the_models_own_loss(loaded: Any, texts: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    engine, config = loaded
    result = perplexity(engine, config, {"texts": str(texts), "max_text_tokens": 1024})
    folder = engine._loaded.source.folder
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    losses, tokens = 0.0, 0
    for line in TEXTS.splitlines():
        ids = tokenizer(line, return_tensors="pt")["input_ids"]
        if ids.shape[1] < 2:
            continue
        with torch.inference_mode():
            count = ids.shape[1] - 1
            losses += float(model(ids, labels=ids).loss) * count
        tokens += count
    assert result["perplexity_tokens"] == tokens
    assert result["perplexity"] == pytest.approx(math.exp(losses / tokens), rel=1e-4)
    assert result["texts_sha256"] == sha256(texts)


def test_long_texts_are_cut(loaded: Any, texts: Path) -> None:
    engine, config = loaded
    result = perplexity(engine, config, {"texts": str(texts), "max_text_tokens": 3})
    assert result["perplexity_tokens"] == 3 * 2


@pytest.mark.parametrize(("content", "told"), [(b"\n \n", "no line of two"), (b"\xff", "utf-8")])
def test_texts_that_cannot_be_used_have_a_reason(
    loaded: Any, tmp_path: Path, content: bytes, told: str
) -> None:
    engine, config = loaded
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    result = perplexity(engine, config, {"texts": str(path), "max_text_tokens": 10})
    assert told in result["perplexity_unavailable"]
    assert "perplexity" not in result


def judged(
    folder: Path, program: str, timeout_s: float = 60, command: list[str] | None = None
) -> dict[str, Any]:
    run = RunFolder(folder)
    run.work.mkdir(parents=True, exist_ok=True)
    run.spec.write_text(json.dumps({"config": {"n": 8}}))
    command = command or [sys.executable, "-c", program]
    return command_score(run, {"command": command, "timeout_seconds": timeout_s})


SEES_SETTINGS = """
import json, os
print("judging")
print(json.load(open(os.environ["LLEM_EXPERIMENT"]))["n"] / 16)
"""


@pytest.mark.parametrize(
    ("program", "score", "correct", "items"),
    [(SEES_SETTINGS, 0.5, None, None), ("print(' 37 / 50 ')", 0.74, 37, 50)],
    ids=["a number", "right answers of all"],
)
def test_a_command_sees_the_settings_and_its_last_line_is_the_score(
    tmp_path: Path, program: str, score: float, correct: int | None, items: int | None
) -> None:
    result = judged(tmp_path, program)
    assert (result["score"], result.get("correct"), result.get("items")) == (score, correct, items)


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("print('7/5')", "no finite number and no share: 7/5"),
        ("print('0/0')", "no finite number and no share: 0/0"),
        ("print('good')", "no finite number and no share: good"),
        ("pass", "no finite number and no share: nothing"),
        ("print('nan')", "no finite number"),
        ("print(1); raise SystemExit(3)", "ended with 3"),
    ],
)
def test_a_command_that_gives_no_score_has_a_reason(
    tmp_path: Path, program: str, told: str
) -> None:
    result = judged(tmp_path, program)
    assert told in result["score_unavailable"]
    assert "score" not in result


def test_a_program_that_is_not_there_has_a_reason(tmp_path: Path) -> None:
    result = judged(tmp_path, "", command=["/nowhere/judge"])
    assert "No such file" in result["score_unavailable"]


def test_what_a_command_has_started_ends_with_its_time(tmp_path: Path) -> None:
    mark = str(tmp_path / "judge")
    child = f"[sys.executable, '-c', 'import time; time.sleep(60)', {mark!r}]"
    result = judged(tmp_path, f"import subprocess, sys; subprocess.run({child})", timeout_s=2)
    assert "the command did not answer within 2 s" in result["score_unavailable"]
    wait_for(lambda: not living(mark), 30)


def test_a_command_s_helper_that_goes_on_does_not_hold_its_score(tmp_path: Path) -> None:
    child = "[sys.executable, '-c', 'import time; time.sleep(60)']"
    started = f"subprocess.Popen({child}, stdout=subprocess.DEVNULL)"
    result = judged(tmp_path, f"import subprocess, sys; {started}; print(0.5)", timeout_s=20)
    assert result["score"] == 0.5


@pytest.mark.slow
def test_through_the_workflow_and_no_part_of_the_id(tmp_path: Path, texts: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    write_study(plain)
    study = write_study(
        tmp_path,
        quality={"texts": str(texts), "command": [sys.executable, "-c", "print(0.75)"]},
    )
    process = llem(tmp_path, "run", str(study))
    assert process.returncode == 0, process.stderr
    (path,) = tmp_path.glob("results/small/runs/*/1/result.json")
    record = json.loads(path.read_text())
    assert "quality_unavailable" not in record["validity"]
    quality = record["quality"]
    assert quality["score"] == 0.75
    assert quality["perplexity"] > 1
    assert (
        json.loads(llem(plain, "plan", "study.yaml", "--json").stdout)["runs"][0]["experiment"]
        == plan_of(tmp_path)["runs"][0]["experiment"]
    )


@pytest.mark.slow
def test_a_score_that_nobody_gave_is_said_wherever_the_run_is(tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    process = llem(tmp_path, "run", str(write_study(tmp_path, quality={"command": failing})))
    assert process.returncode == 0, process.stderr
    assert "quality_unavailable" in process.stdout
    (path,) = tmp_path.glob("results/small/runs/*/1/result.json")
    record = json.loads(path.read_text())
    assert "quality_unavailable" in record["validity"]
    details = record["provenance"]["validity_details"]
    assert details["quality_unavailable"] == "the command ended with 3"
    assert "quality_unavailable" in (tmp_path / "results/small/report.html").read_text()


@pytest.mark.slow
def test_tasks_without_what_answers_them_end_the_run_before_it_loads_anything(
    tmp_path: Path,
) -> None:
    if importlib.util.find_spec("lm_eval") is not None:
        pytest.skip("lm-eval is installed here")
    process = llem(tmp_path, "run", str(write_study(tmp_path, quality={"tasks": [OWN_TASK]})))
    assert process.returncode == 1
    assert "quality.tasks: needs lm-eval where the engine runs" in process.stderr + process.stdout
    assert not list(tmp_path.glob("results/small/runs/*/1/result.json"))


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        ({"texts": "nowhere.txt"}, r"quality\.texts.*nowhere\.txt"),
        ({"max_text_tokens": 5}, "texts, command or both, or tasks"),
        ({"command": ["judge"], "tasks": [OWN_TASK]}, "a run has one score"),
    ],
)
def test_what_gives_no_score_is_refused_at_once(
    tmp_path: Path, quality: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_study(write_study(tmp_path, quality=quality))


@pytest.fixture
def lm_eval_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval, installed or in the folder that CI makes, which comes after what is installed."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "build" / "lm-eval")])
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("no lm-eval: .ci/install_lm_eval.sh build/lm-eval makes it")


@pytest.mark.slow
@pytest.mark.usefixtures("lm_eval_there")
def test_the_shipped_task_is_answered_by_the_engine_that_was_measured(loaded: Any) -> None:
    """By hand: of each question, the choice that the engine takes to be likeliest."""
    engine, config = loaded
    result = task_score(engine, config, {"tasks": [OWN_TASK]})
    assert "score_unavailable" not in result, result
    tokenizer = Tokenizer(config)

    def ids(text: str) -> list[int]:
        return tokenizer.encode([Record(0, "", text)])[0]

    items = [json.loads(line) for line in _SMALL_TASK_ITEMS.read_text().splitlines()]
    right = 0
    for item in items:
        before = len(ids(item["question"]))
        sums = [
            math.fsum(engine.log_likelihoods(ids(f"{item['question']} {choice}"))[before - 1 :])
            for choice in item["choices"]
        ]
        right += sums.index(max(sums)) == item["answer"]
    assert (result["correct"], result["items"]) == (right, 40)
    assert result["score"] == right / 40
    few = task_score(engine, config, {"tasks": [OWN_TASK], "task_items": 5})
    assert few["items"] == 5


def test_a_task_that_is_not_there_or_an_engine_that_cannot_has_a_reason(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, config = loaded
    unknown = task_score(object(), config, {"tasks": [OWN_TASK]})  # type: ignore[arg-type]
    assert unknown["score_unavailable"] == "pytorch gives no likelihoods of given text"
    assert unknown["tasks"] == [OWN_TASK]
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    missing = task_score(engine, config, {"tasks": [OWN_TASK]})
    assert "lm_eval" in missing["score_unavailable"]


def test_each_shipped_question_has_one_right_choice_of_four() -> None:
    for line in _SMALL_TASK_ITEMS.read_text().splitlines():
        item = json.loads(line)
        assert len(set(item["choices"])) == 4
        assert item["answer"] in range(4)


def test_a_score_that_was_never_given_has_a_reason() -> None:
    settings = {"command": ["judge"], "timeout_seconds": 9}
    ended = quality_record(settings, None)
    assert ended is not None
    assert (ended.score, ended.command) == (None, ["judge"])
    assert ended.score_unavailable == "the run was ended before the command judged it"
    judged = quality_record(settings, {"command": ["judge"], "score": 0.5})
    assert judged is not None
    assert (judged.score, judged.score_unavailable) == (0.5, None)
    assert quality_record(None, None) is None
    looked = quality_record({"texts": "t", "max_text_tokens": 9}, None)
    assert looked is not None
    assert looked.perplexity_unavailable == "the run was ended before its answers were looked at"
    assert looked.score_unavailable is None
    asked_tasks = quality_record({"tasks": [OWN_TASK]}, {"perplexity": 3.0})
    assert asked_tasks is not None
    assert (asked_tasks.tasks, asked_tasks.perplexity_unavailable) == ([OWN_TASK], None)
    assert asked_tasks.score_unavailable == "the run was ended before its answers were looked at"
