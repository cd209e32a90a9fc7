"""``llem compare`` where answers end by themselves: also over the answers of one length."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.cli.compare import compare
from llenergymeasure.results.layout import StudyFolder
from results.synthetic import make_plan, make_result, write_plan, write_result

CONFIGS = [{"model": "tiny-llama", "precision": name} for name in ("float32", "bfloat16")]
REQUEST, MATCHED = "energy_per_request_j", "energy_per_matched_request_j"
NOISE = (1.0, 1.02, 0.99, 1.01)

BOTH = [(10, 10), (40, 41), (30, 100), (20, 60)]
"""Tokens of the answers to four prompts by either experiment: two are as long in both."""


def study(
    folder: Path, joules_a_token=(1.0, 1.0), lengths=BOTH, hashes=("a", "a"), drop=()
) -> Path:
    """Make a study of two experiments, whose answers cost so much a token."""
    plan = make_plan(CONFIGS, ["precision"], cycles=4)
    write_plan(folder, plan)
    for run in plan["runs"]:
        side = [each["precision"] for each in CONFIGS].index(run["config"]["precision"])
        level_j = joules_a_token[side] * NOISE[(run["cycle"] + side) % 4]
        answers = [pair[side] for pair in lengths]
        tokens = sum(answers)
        result = make_result(run, energy_j=level_j * tokens)
        changed = {"output": tokens, "requests": len(answers), "prompt_hash": hashes[side] * 64}
        energy = {"per_request_j": level_j * tokens / len(answers), "per_output_token_j": level_j}
        result = result.model_copy(
            update={
                "tokens": result.tokens.model_copy(update=changed),
                "energy": result.energy.model_copy(update=energy),
            }
        )
        write_result(folder, result, plan["swept"])
        rows = {
            "prompt": list(range(len(answers))),
            "output_tokens": answers,
            "request_energy_j": [level_j * each for each in answers],
        }
        kept = {name: values for name, values in rows.items() if name not in drop}
        if "file" not in drop:
            path = StudyFolder(folder).run(run["experiment"], run["cycle"]).requests
            pq.write_table(pa.table(kept), path)
    write_tables(folder, partial=False)
    return folder


def rows_of(folder: Path, capsys) -> dict[str, dict]:
    ids = [run["experiment"] for run in json.loads((folder / "plan.json").read_text())["runs"]]
    compare(ids[0], ids[1], study=folder, fail_if=[], as_json=True)
    return {row["metric"]: row for row in json.loads(capsys.readouterr().out)}


def test_longer_answers_alone_are_no_difference_over_the_matched_ones(tmp_path, capsys):
    rows = rows_of(study(tmp_path), capsys)
    assert rows[REQUEST]["ratio"] == pytest.approx(2.11, abs=0.03)
    assert rows[REQUEST]["p_holm"] < 0.05
    matched = rows[MATCHED]
    assert (matched["matched"], matched["asked"], matched["n"]) == (8, 16, 4)
    assert matched["ci95_low"] < 51 / 50 < matched["ci95_high"]
    assert matched["p_holm"] > 0.05


def test_dearer_answers_of_one_length_are_shown(tmp_path, capsys):
    matched = rows_of(study(tmp_path, (1.0, 0.5)), capsys)[MATCHED]
    assert matched["ratio"] == pytest.approx(0.51, rel=0.02)
    assert matched["p_holm"] < 0.05


def test_the_terminal_says_over_how_many_answers(tmp_path, capsys):
    folder = study(tmp_path, (1.0, 0.5))
    ids = [run["experiment"] for run in json.loads((folder / "plan.json").read_text())["runs"]]
    compare(ids[0], ids[1], study=folder, fail_if=[])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if MATCHED in line)
    assert "paired over 4 cycles; 8 of 16 answers are as long in both" in line


def test_a_guard_may_ask_for_them(tmp_path):
    folder = study(tmp_path, (1.0, 1.5))
    ids = [run["experiment"] for run in json.loads((folder / "plan.json").read_text())["runs"]]
    assert compare(ids[0], ids[1], study=folder, fail_if=[f"{MATCHED} > 1.4"]) == 1
    assert compare(ids[0], ids[1], study=folder, fail_if=[f"{MATCHED} > 1.6"]) == 0


def test_answers_alike_in_length_have_no_such_row(tmp_path, capsys):
    assert MATCHED not in rows_of(study(tmp_path, lengths=[(10, 10), (40, 41)]), capsys)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"lengths": [(10, 20), (10, 30)]}, "0 of 8 answers are as long in both"),
        ({"hashes": ("a", "b")}, "0 of 0 answers"),
        ({"drop": ("request_energy_j",)}, "0 of 16 answers"),
        ({"drop": ("file",)}, "cannot be read"),
    ],
    ids=["none as long", "other prompts", "no energy of a request", "no table of requests"],
)
def test_without_matched_answers_the_reason_is_said(tmp_path, capsys, how, why):
    rows = rows_of(study(tmp_path, **how), capsys)
    assert rows[MATCHED]["ratio"] is None
    assert why in rows[MATCHED]["unavailable"]
    assert rows[REQUEST]["ratio"] is not None
