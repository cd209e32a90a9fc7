"""``llem compare``: two studies, or two experiments of one, and its guard."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.cli.compare import UNPAIRED_NOTE, compare, parse_condition
from llenergymeasure.cli.results import results
from llenergymeasure.energy.account import METHOD
from llenergymeasure.errors import EXIT_OK, ConfigurationError
from llenergymeasure.results.record import Tokens
from report.studies import table, write_study
from results.synthetic import GPU, make_plan, make_result, write_plan, write_result, write_runs

TOKEN = "energy_per_output_token_j"
CONFIGS = [{"model": "tiny-llama", "pytorch": {"batch_size": size}} for size in (1, 8)]
NOISE = (1.0, 1.01, 0.995, 1.004)
SWEPT = ["pytorch.batch_size"]


def study(folder, level=1.0, hour=12, unseen=0.0, configs=CONFIGS, swept=SWEPT, **how) -> Path:
    """Make a study whose runs use ``level`` kJ with the first batch size, begun at this hour."""
    plan = make_plan(configs, swept, cycles=4)
    write_plan(folder, plan)
    for run in plan["runs"]:
        size = run["config"].get("pytorch", {"batch_size": 1})["batch_size"]
        energy_j = level * 1000 / size**0.5 * NOISE[(run["cycle"] - 1 + hour) % 4]
        result = make_result(run, energy_j=energy_j, **how)
        energy = result.energy.model_copy(update={"shared_u95_j": unseen * result.energy.gross_j})
        recording = {"started_at": f"2026-03-01T{hour}:{run['order']:02d}:00.25+00:00"}
        provenance = {**result.provenance, "recording": recording}
        result = result.model_copy(update={"provenance": provenance, "energy": energy})
        write_result(folder, result, plan["swept"])
    write_tables(folder, partial=False)
    return folder


def ids_of(folder: Path) -> list[str]:
    return [run["experiment"] for run in json.loads((folder / "plan.json").read_text())["runs"]][:2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Two studies, of which the second used 5 % more; to be read only."""
    root = tmp_path_factory.mktemp("pair")
    return study(root / "a"), study(root / "b", level=1.05, hour=13)


@dataclass(frozen=True)
class Said:
    """Whether no condition held, and what was said."""

    ok: bool
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of the energy per token."""
        return [line for line in self.out.splitlines() if TOKEN in line]


@pytest.fixture
def compared(capsys) -> Callable[..., Said]:
    def call(a, b, *fail_if, within=None, as_json=False):
        code = compare(str(a), str(b), study=within, fail_if=list(fail_if), as_json=as_json)
        return Said(code == EXIT_OK, *capsys.readouterr())

    return call


@pytest.fixture
def rows(compared) -> Callable[..., list[dict]]:
    """The comparisons of the energy per token, as programs get them."""

    def call(a, b, within=None):
        found = json.loads(compared(a, b, within=within, as_json=True).out)
        return [row for row in found if row["metric"] == TOKEN]

    return call


def test_two_studies_are_compared_experiment_by_experiment(pair, compared):
    said = compared(*pair)
    labels = [line for line in said.out.splitlines() if line.startswith("batch_size")]
    assert labels == ["batch_size=1", "batch_size=8"]
    assert len(said.lines) == 2
    assert all("1.05" in line and "differ" in line for line in said.lines)
    assert all("unpaired, 4 and 4 runs" in line for line in said.lines)
    assert "in no interval and looks like an effect" in said.out
    assert "do not count" not in said.out
    assert said.err == ""


def test_two_experiments_of_a_study_are_paired_by_cycle(pair, compared):
    one, other = ids_of(pair[0])
    said = compared(one[:8], other, within=pair[0])
    assert said.out.splitlines()[:2] == ["A: batch_size=1", "B: batch_size=8"]
    assert "0.3536" in said.out
    assert "paired over 4 cycles" in said.out
    assert "looks like an effect" not in said.out


def test_on_a_narrow_terminal_no_word_is_broken(pair, compared, monkeypatch):
    monkeypatch.setattr("llenergymeasure.screen.terminal_width", lambda *_: 60)
    shown = compared(*pair).out.partition("\n\n")[2]
    assert "\nenergy_per_output_token_j " in shown
    assert shown.startswith("batch_size=1\n")
    lines = [
        line for line in shown.splitlines() if not line.startswith(("(left out", UNPAIRED_NOTE))
    ]
    assert max(map(len, lines)) <= 60


def test_what_was_measured_again_in_a_copy_is_compared_and_a_whole_copy_is_not(
    pair, tmp_path, compared
):
    """As ``cp -r before after`` and a change in one experiment."""
    a, changed = pair
    shutil.copytree(a, b := tmp_path / "b")
    with pytest.raises(ConfigurationError, match="hold the same run"):
        compared(a, b)
    _, again = ids_of(a)
    shutil.rmtree(b / "runs" / again)
    shutil.copytree(changed / "runs" / again, b / "runs" / again)
    write_tables(b, partial=False)
    said = compared(a, b)
    assert len(said.lines) == 1
    assert "1 experiment with a run that" in said.err
    assert "not compared: batch_size=1" in said.err


def test_what_cannot_be_compared_is_refused(pair, tmp_path, compared, monkeypatch):
    """A guard whose two sides are one would never hold."""
    a, _ = pair
    one, _ = ids_of(a)
    write_runs(tmp_path / "other", make_plan([{"model": "other"}], []))
    write_tables(tmp_path / "other", partial=False)
    with pytest.raises(ConfigurationError, match="no experiment in common"):
        compared(a, tmp_path / "other")
    monkeypatch.chdir(a.parent)
    with pytest.raises(ConfigurationError, match="are the same study"):
        compared("a", a, f"{TOKEN} > 1.02")
    with pytest.raises(ConfigurationError, match="are the same experiment; there are "):
        compared(one, one[:8], within=Path("a"))
    with pytest.raises(ConfigurationError, match="no experiment of the study begins with zz"):
        compared("zz", "zz", within=a)


def test_two_experiments_that_differ_in_long_paths_are_named_whole(tmp_path, compared):
    models = [f"/data/{'models/' * 20}{name}" for name in ("llama", "llama against itself")]
    configs = [{"model": path} for path in models]
    write_study(tmp_path, lambda *_: {"energy_j": 1.0}, configs=configs)
    heading = compared(*ids_of(tmp_path), within=tmp_path).out.splitlines()[:2]
    assert all(model in line for model, line in zip(models, heading, strict=True))


@pytest.mark.parametrize(
    ("configs", "limits_w", "answers"),
    [
        ([{"gpu": {"power_limit_w": limit}} for limit in (300, 400)], (300, 400), (2000, 2000)),
        (
            [{"backend": name, "answer_length": "natural"} for name in ("pytorch", "vllm")],
            (700, 700),
            (2000, 2100),
        ),
    ],
    ids=["a limit", "natural answers"],
)
def test_what_the_page_compares_is_compared_here_too(tmp_path, rows, configs, limits_w, answers):
    """A limit that the study sets, and answers that may end by themselves, are in the plan."""

    def made(run, place):
        energy_j = 1000 * (1 + place) * NOISE[(run["cycle"] + place) % 4]
        card = {"uuid": GPU, "name": "NVIDIA H200", "power_limit_w": limits_w[place]}
        tokens = Tokens(input=8000, output=answers[place], requests=20, prompt_hash="a" * 64)
        environment = {"host": "node-1", "gpus": [card]}
        return {"energy_j": energy_j, "tokens": tokens, "environment": environment}

    write_study(tmp_path, made, configs=[{"model": "tiny-llama", **config} for config in configs])
    (of_page,) = (row for row in table(tmp_path, "comparisons") if row["metric"] == TOKEN)
    (row,) = rows(of_page["experiment_a"], of_page["experiment_b"], within=tmp_path)
    assert row["method"] == "paired"
    for name in ("ratio", "ci95_low", "ci95_high", "p"):
        assert row[name] == pytest.approx(of_page[name])


@pytest.mark.parametrize(("unseen", "said"), [(0.03, False), (0.06, True)])
def test_a_difference_within_what_the_sensor_leaves_open_is_named(
    pair, tmp_path, compared, unseen, said
):
    lines = compared(pair[0], study(tmp_path, level=1.05, hour=13, unseen=unseen)).lines
    assert all("differ" in line for line in lines)
    text = "4 runs; less than what the sensor leaves open, ±6.0 %"
    assert [text in line for line in lines] == [said, said]


def test_studies_of_two_energy_methods_are_said_to_be(pair, tmp_path, capsys, compared):
    a, same = pair
    b = study(tmp_path, hour=14, provenance={"energy_method": 3})
    sentence = f"computed by unlike methods of the meter, 3 and {METHOD}: they may differ"
    assert sentence in compared(a, b).out
    results([a, b], group_by="pytorch.batch_size")
    assert sentence in capsys.readouterr().err
    results([a, b], group_by="pytorch.batch_size", metric="throughput")
    assert sentence not in capsys.readouterr().err
    assert "unlike methods" not in compared(a, same).out


def test_what_all_pairs_together_leave_open_says_what_would_decide_it(
    pair, tmp_path, rows, compared
):
    a, b = pair[0], study(tmp_path, level=1.012, hour=13)
    found = rows(a, b)
    assert [row["label"] for row in found] == ["batch_size=1", "batch_size=8"]
    assert all(row["p_holm"] >= 0.05 and row["cycles_to_decide"] > 4 for row in found)
    assert all(row["p"] < 0.05 for row in found)
    lines = compared(a, b).lines
    assert all("inconclusive" in line and "differ" not in line for line in lines)


def test_the_guard_says_what_held(pair, compared):
    said = compared(*pair, f"{TOKEN} > 1.02")
    assert not said.ok
    assert f"batch_size=1: {TOKEN} > 1.02 holds, the ratio is 1.05" in said.err
    assert compared(*pair, f"{TOKEN} > 1.06", f"{TOKEN}<1").ok


@pytest.mark.parametrize(
    "text", ["energy > 1", f"{TOKEN} = 1", f"{TOKEN} > x", "", "__import__ > 1"]
)
def test_a_bad_condition_is_refused(text):
    with pytest.raises(ConfigurationError, match="--fail-if"):
        parse_condition(text)


def test_energies_of_two_meters_are_not_compared_and_are_nothing_for_a_guard_to_test(
    pair, tmp_path, compared
):
    a, b = pair[0], study(tmp_path, kind="estimated", source="codecarbon", hour=13)
    said = compared(a, b)
    assert len(said.lines) == 2
    assert (said.out.count("estimated by codecarbon"), said.out.count("as above")) == (2, 6)
    assert all("not compared" in line for line in said.lines)
    assert all("estimated by codecarbon" in line for line in said.lines)
    with pytest.raises(ConfigurationError, match="estimated by codecarbon"):
        compared(a, b, f"{TOKEN} > 1.02")


ENGINES = [{"host": "node-1", "engine": {"versions": {"torch": digit}}} for digit in "12"]


@pytest.mark.parametrize(
    ("how_a", "how_b", "words"),
    [
        ({}, {"validity": ["other_process"]}, "4 and 0 runs are in the means"),
        (
            {"environment": ENGINES[0]},
            {"environment": ENGINES[1]},
            "unpaired, 4 and 4 runs; differ in engine_version",
        ),
    ],
    ids=["no run in the means", "another version of the engine"],
)
def test_the_last_column_says_what_else_parts_them(tmp_path, compared, how_a, how_b, words):
    said = compared(study(tmp_path / "a", **how_a), study(tmp_path / "b", hour=13, **how_b))
    assert len(said.lines) == 2
    assert all(words in line for line in said.lines)


def test_a_verdict_says_what_the_sensor_may_not_see(pair, tmp_path, compared):
    text = "In 8 of 16 runs nothing shows that the sensor saw all"
    said = compared(pair[1], study(tmp_path, hour=14, validity=("undersampled",)))
    assert "differ" in said.out
    assert text in said.out
    assert text not in compared(*pair).out


def test_an_experiment_with_the_same_setting_in_force_on_both_sides_is_compared(tmp_path, compared):
    account = {"batch_size": 8, "max_num_seqs": 8}
    environment = {"host": "node-1", "gpus": [], "engine": {"resolved_config": account}}
    config = {"model": "tiny-llama", "backend": "vllm", "vllm": {"engine": {"max_num_seqs": 8}}}
    swept = ["vllm.engine.max_num_seqs"]
    how = {"configs": [config], "swept": swept, "environment": environment}
    said = compared(study(tmp_path / "a", **how), study(tmp_path / "b", 1.05, hour=13, **how))
    assert "1.05" in said.out
    assert "not compared" not in said.out


def asked_for_more(folder: Path, *, finished: bool) -> None:
    """Let the plan ask for a cycle more than the tables have, and finish its runs or not."""
    plan = make_plan(CONFIGS, SWEPT, cycles=5)
    write_plan(folder, plan)
    for run in plan["runs"][-2:] if finished else []:
        write_result(folder, make_result(run, energy_j=5000.0), plan["swept"])


@pytest.mark.parametrize("finished", [True, False])
def test_tables_that_are_behind_the_plan_are_said_to_be_and_are_no_guard(
    pair, tmp_path, compared, finished
):
    a, b = pair[0], study(tmp_path, hour=13)
    assert compared(a, b, f"{TOKEN} > 1.5").err == ""
    asked_for_more(b, finished=finished)
    assert f"tables of {b} know 8 of 10 planned runs" in compared(a, b).err
    with pytest.raises(ConfigurationError, match="llem report"):
        compared(a, b, f"{TOKEN} > 1.5")
    if not finished:  # its runs finish after its tables were written
        write_tables(b, partial=True)
        assert compared(a, b, f"{TOKEN} > 1.5").ok
        asked_for_more(b, finished=True)
        words = f"2 runs of {b} have completed since its tables were written"
        assert words in compared(a, b).err


def test_an_experiment_that_only_one_side_has_is_named(pair, tmp_path, compared):
    a, b = pair[0], tmp_path / "b"
    write_runs(b, make_plan([CONFIGS[0], {"model": "other"}], []))
    write_tables(b, partial=False)
    assert compared(a, b).err.splitlines() == [
        f"1 experiment of {a} is not in {b} and not compared: batch_size=8",
        f"1 experiment of {b} is not in {a} and not compared: other",
    ]


def test_an_experiment_without_a_run_in_the_table_has_a_row_with_the_reason(pair, tmp_path, rows):
    """Tables of two moments, as a copy that was made while one was written may hold them."""
    a, b = pair[0], study(tmp_path, hour=13)
    runs = pq.read_table(b / "runs.parquet")
    removed_id = runs["experiment"][0].as_py()
    pq.write_table(runs.filter(pc.field("experiment") != removed_id), b / "runs.parquet")
    found = rows(a, b)
    assert sorted(row["ratio"] is None for row in found) == [False, True]
    assert all(row["unavailable"] for row in found if row["ratio"] is None)


def test_runs_that_are_not_there_are_counted(pair, tmp_path, compared):
    shutil.copytree(pair[0], folder := tmp_path / "a")
    one, other = ids_of(folder)
    shutil.rmtree(folder / "runs" / other / "1")
    write_tables(folder, partial=True)
    text = "1 of 8 runs have no result or do not count: if they would have used more"
    assert text in compared(one, other, within=folder).out
