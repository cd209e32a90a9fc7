"""``llem compare`` where answers end by themselves: also over the answers of one length."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.cli.compare import compare, parse_condition
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.results.layout import StudyFolder
from results.synthetic import make_plan, make_result, write_plan, write_result

PRECISIONS = ("float32", "bfloat16")
REQUEST, MATCHED = "energy_per_request_j", "energy_per_matched_request_j"
NOISE = (1.0, 1.02, 0.99, 1.01)

BOTH = [(10, 10), (40, 40), (30, 100), (20, 21)]
"""Tokens of the answers to four prompts by either experiment: two are as long in both."""


def study(
    folder: Path,
    joules_a_token=(1.0, 1.0),
    lengths=BOTH,
    hashes=("a", "a"),
    settings=({}, {}),
    cycles=4,
    spread=1.0,
    **how,
) -> Path:
    """Make a study of two experiments; what is given in pairs is of either."""
    configs = [
        {"model": "tiny-llama", "precision": name, **own}
        for name, own in zip(PRECISIONS, settings, strict=True)
    ]
    plan = make_plan(configs, ["precision"], cycles=cycles)
    write_plan(folder, plan)
    for run in plan["runs"]:
        side = PRECISIONS.index(run["config"]["precision"])
        noise = 1 + spread * (NOISE[(run["cycle"] + side) % 4] - 1)
        level_j = joules_a_token[side] * noise
        answers = [pair[side] for pair in lengths]
        tokens = sum(answers)
        result = make_result(run, energy_j=level_j * tokens, **how)
        changed = {"output": tokens, "requests": len(answers), "prompt_hash": hashes[side] * 64}
        energy = {"per_request_j": level_j * tokens / len(answers), "per_output_token_j": level_j}
        result = result.model_copy(
            update={
                "tokens": result.tokens.model_copy(update=changed),
                "energy": result.energy.model_copy(update=energy),
            }
        )
        write_result(folder, result, plan["swept"])
        columns = {
            "prompt": list(range(len(answers))),
            "input_tokens": [5] * len(answers),
            "output_tokens": answers,
            "request_energy_j": [level_j * each for each in answers],
            "request_energy_unavailable": [None] * len(answers),
        }
        path = StudyFolder(folder).run(run["experiment"], run["cycle"]).requests
        pq.write_table(pa.table(columns), path)
    write_tables(folder, partial=False)
    return folder


@pytest.fixture(scope="module")
def longer(tmp_path_factory) -> Path:
    """A study whose second side writes longer answers; to be read only."""
    return study(tmp_path_factory.mktemp("longer"))


def with_tables(folder: Path, of: Path, lost=(), **columns: list[Any] | None) -> Path:
    """Copy a study, without the tables of requests of these cycles or with other columns."""
    shutil.copytree(of, folder, dirs_exist_ok=True)
    for run in json.loads((folder / "plan.json").read_text())["runs"]:
        path = StudyFolder(folder).run(run["experiment"], run["cycle"]).requests
        right = pq.read_table(path).to_pydict()
        path.unlink()
        if run["cycle"] not in lost:
            found = {name: values for name, values in {**right, **columns}.items() if values}
            pq.write_table(pa.table(found), path)
    return folder


def ids_of(folder: Path) -> list[str]:
    return [run["experiment"] for run in json.loads((folder / "plan.json").read_text())["runs"]][:2]


def rows_of(folder: Path, capsys) -> dict[str, dict]:
    compare(*ids_of(folder), study=folder, fail_if=[], as_json=True)
    return {row["metric"]: row for row in json.loads(capsys.readouterr().out)}


def test_longer_answers_alone_are_no_difference_over_the_matched_ones(longer, capsys):
    rows = rows_of(longer, capsys)
    assert rows[REQUEST]["ratio"] == pytest.approx(1.71, abs=0.03)
    assert rows[REQUEST]["p_holm"] < 0.05
    matched = rows[MATCHED]
    assert (matched["matched"], matched["asked"], matched["n"]) == (8, 16, 4)
    assert matched["ci95_low"] < 1 < matched["ci95_high"]
    assert matched["p_holm"] > 0.05


def test_answers_that_are_longer_by_a_little_are_no_difference(tmp_path, capsys):
    """One side writes 10 % more, give or take 6 %: near pairs would be longer on its side."""
    draws = np.random.default_rng(3)
    lengths = [
        (int(tokens), int(tokens * draws.normal(1.1, 0.06)))
        for tokens in draws.integers(60, 300, 400)
    ]
    matched = rows_of(study(tmp_path, lengths=lengths, spread=0.01), capsys)[MATCHED]
    assert matched["matched"] >= 8
    assert matched["ratio"] == pytest.approx(1.0, abs=1e-3)


def test_dearer_answers_of_one_length_are_shown_and_over_how_many(tmp_path, capsys):
    folder = study(tmp_path, (1.0, 0.5))
    matched = rows_of(folder, capsys)[MATCHED]
    assert matched["ratio"] == pytest.approx(0.5, rel=0.02)
    assert matched["p_holm"] < 0.05
    compare(*ids_of(folder), study=folder, fail_if=[])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if MATCHED in line)
    assert "paired over 4 cycles; over 8 of 16 answers, as long in both" in line


def test_a_cycle_whose_tables_are_lost_is_left_out(longer, tmp_path, capsys):
    matched = rows_of(with_tables(tmp_path, longer, lost=(3,)), capsys)[MATCHED]
    assert (matched["matched"], matched["asked"], matched["n"]) == (6, 12, 3)


def test_no_guard_asks_for_what_chance_leaves_out():
    with pytest.raises(ConfigurationError, match="is none of"):
        parse_condition(f"{MATCHED} > 1.4")


@pytest.mark.parametrize(
    "how",
    [
        {"lengths": [(10, 10), (40, 40)]},
        {"cycles": 1},
        {"hashes": ("a", "b"), "validity": ["other_process"]},
    ],
    ids=["alike in length", "one cycle", "no run in the means"],
)
def test_pairs_that_have_no_other_ratio_to_look_behind_have_no_such_row(tmp_path, capsys, how):
    assert MATCHED not in rows_of(study(tmp_path, **how), capsys)


SHUFFLED = {"dataset_order": "shuffled"}
OTHER_PROMPTS = "the prompts, or their order, are not the same"


def without_ratio(folder: Path, capsys) -> str:
    """Return why there is no ratio over the answers of one length, where there is another one."""
    rows = rows_of(folder, capsys)
    assert rows[MATCHED]["ratio"] is None
    assert rows[REQUEST]["ratio"] is not None
    return rows[MATCHED]["unavailable"]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"lengths": [(10, 20), (10, 30)]}, "0 of 8 answers are as long in both"),
        ({"hashes": ("a", "b")}, OTHER_PROMPTS),
        ({"settings": ({}, SHUFFLED)}, OTHER_PROMPTS),
        ({"settings": [{**SHUFFLED, "random_seed": seed} for seed in (1, 2)]}, OTHER_PROMPTS),
    ],
)
def test_without_matched_answers_the_reason_is_said(tmp_path, capsys, how, why):
    assert why in without_ratio(study(tmp_path, **how), capsys)


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        (
            {"request_energy_j": [None] * 4, "request_energy_unavailable": ["why"] * 4},
            "8 of 16 answers are as long in both, 0 of them with an energy of each; why",
        ),
        (
            {"request_energy_j": None, "request_energy_unavailable": None},
            "8 of 16 answers are as long in both, 0 of them with an energy of each",
        ),
        ({"lost": (1, 2, 3, 4)}, "cannot be read"),
        ({"prompt": None}, "is no table of requests"),
        ({"output_tokens": None}, "is no table of requests"),
        ({"output_tokens": ["a", "b", "c", "d"]}, "is no table of requests"),
        ({"prompt": [[1], [2], [3], [4]]}, "is no table of requests"),
        ({"request_energy_j": ["x"] * 4}, "is no table of requests"),
        ({"prompt": [None] * 4}, "0 of 0 answers are as long in both"),
    ],
)
def test_tables_of_requests_that_are_no_use_are_the_reason(longer, tmp_path, capsys, tables, why):
    assert why in without_ratio(with_tables(tmp_path, longer, **tables), capsys)
