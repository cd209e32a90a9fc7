"""``llem compare``: two studies, or two experiments of one, and its guard."""

import json
import shutil
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


def study(
    folder: Path,
    level: float = 1.0,
    cycles: int = 4,
    hour: int = 12,
    unseen: float = 0.0,
    part: str = "",
    **how,
) -> Path:
    plan = make_plan(CONFIGS, ["pytorch.batch_size"], cycles=cycles)
    write_plan(folder, plan)
    for run in plan["runs"]:
        size = run["config"]["pytorch"]["batch_size"]
        energy_j = level * 1000 / size**0.5 * NOISE[(run["cycle"] - 1 + hour) % 4]
        result = make_result(run, energy_j=energy_j, **how)
        started_at = f"2026-03-01T{hour}:{run['order']:02d}:00{part}+00:00"
        energy = result.energy.model_copy(update={"shared_u95_j": unseen * result.energy.gross_j})
        recording = {"started_at": started_at}
        provenance = {**result.provenance, "recording": recording}
        result = result.model_copy(update={"provenance": provenance, "energy": energy})
        write_result(folder, result, plan["swept"])
    write_tables(folder, partial=False)
    return folder


def compared(a, b, *fail_if, within=None):
    return compare(str(a), str(b), study=within, fail_if=list(fail_if)) == EXIT_OK


def test_two_studies_are_compared_experiment_by_experiment(tmp_path, capsys):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", level=1.05, hour=13)
    assert compared(a, b)
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("batch_size")] == [
        "batch_size=1",
        "batch_size=8",
    ]
    lines = [line for line in out if TOKEN in line]
    assert len(lines) == 2
    assert all("1.05" in line and "differ" in line for line in lines)
    assert all("unpaired, 4 and 4 runs" in line for line in lines)


def test_on_a_narrow_terminal_no_word_is_broken(tmp_path, capsys, monkeypatch):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", level=1.05, hour=13)
    monkeypatch.setattr("llenergymeasure.screen.terminal_width", lambda *_: 60)
    assert compared(a, b)
    shown = capsys.readouterr().out.partition("\n\n")[2]
    assert "\nenergy_per_output_token_j " in shown
    assert shown.startswith("batch_size=1\n")
    rows = [
        line for line in shown.splitlines() if not line.startswith(("(left out", UNPAIRED_NOTE))
    ]
    assert max(map(len, rows)) <= 60


def test_a_study_is_not_compared_with_its_copy(tmp_path):
    shutil.copytree(a := study(tmp_path / "a", part=".25"), b := tmp_path / "b")
    with pytest.raises(ConfigurationError, match="hold the same run"):
        compared(a, b)


def test_what_was_measured_again_in_a_copy_is_compared(tmp_path, capsys):
    """As ``cp -r before after`` and a change in one experiment."""
    shutil.copytree(a := study(tmp_path / "a", part=".25"), b := tmp_path / "b")
    new = study(tmp_path / "new", level=1.05, hour=13, part=".25")
    _, again = (run["experiment"] for run in json.loads((a / "plan.json").read_text())["runs"][:2])
    shutil.rmtree(b / "runs" / again)
    shutil.copytree(new / "runs" / again, b / "runs" / again)
    write_tables(b, partial=False)
    assert compared(a, b)
    shown = capsys.readouterr()
    assert shown.out.count(TOKEN) == 1
    assert "1 experiment with a run that" in shown.err
    assert "not compared: batch_size=1" in shown.err


def test_nothing_is_compared_with_itself(tmp_path, monkeypatch):
    """A guard whose two sides are one would never hold."""
    ids = [
        run["experiment"]
        for run in json.loads((study(tmp_path / "a") / "plan.json").read_text())["runs"]
    ]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="are the same study"):
        compared("a", tmp_path / "a", f"{TOKEN} > 1.02")
    with pytest.raises(ConfigurationError, match="are the same experiment; there are "):
        compared(ids[0], ids[0][:8], within=Path("a"))


def test_two_experiments_of_a_study_are_paired_by_cycle(tmp_path, capsys):
    folder = study(tmp_path)
    ids = [run["experiment"] for run in json.loads((folder / "plan.json").read_text())["runs"]]
    assert compared(ids[0][:8], ids[1], within=folder)
    out = capsys.readouterr().out
    assert out.splitlines()[:2] == ["A: batch_size=1", "B: batch_size=8"]
    assert "0.3536" in out
    assert "paired over 4 cycles" in out


def test_two_experiments_that_differ_in_long_paths_are_named_whole(tmp_path, capsys):
    models = [f"/data/{'models/' * 20}{name}" for name in ("llama", "llama against itself")]
    write_study(
        tmp_path, lambda *_: {"energy_j": 1.0}, configs=[{"model": path} for path in models]
    )
    ids = [run["experiment"] for run in json.loads((tmp_path / "plan.json").read_text())["runs"]]
    assert compared(ids[0], ids[1], within=tmp_path)
    heading = capsys.readouterr().out.splitlines()[:2]
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
)
def test_what_the_page_compares_is_compared_here_too(tmp_path, capsys, configs, limits_w, answers):
    """A limit that the study sets, and answers that may end by themselves, are in the plan."""

    def made(run, place):
        energy_j = 1000 * (1 + place) * NOISE[(run["cycle"] + place) % 4]
        card = {"uuid": GPU, "name": "NVIDIA H200", "power_limit_w": limits_w[place]}
        tokens = Tokens(input=8000, output=answers[place], requests=20, prompt_hash="a" * 64)
        environment = {"host": "node-1", "gpus": [card]}
        return {"energy_j": energy_j, "tokens": tokens, "environment": environment}

    write_study(tmp_path, made, configs=[{"model": "tiny-llama", **config} for config in configs])
    (pair,) = (row for row in table(tmp_path, "comparisons") if row["metric"] == TOKEN)
    compare(pair["experiment_a"], pair["experiment_b"], study=tmp_path, fail_if=[], as_json=True)
    row = json.loads(capsys.readouterr().out)[0]
    assert row["method"] == "paired"
    for name in ("ratio", "ci95_low", "ci95_high", "p"):
        assert row[name] == pytest.approx(pair[name])


def test_no_difference_is_inconclusive(tmp_path, capsys):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", level=1.001, hour=13)
    assert compared(a, b)
    table = capsys.readouterr().out.partition("\n\n")[2]
    assert "inconclusive" in table
    assert "differ" not in table


@pytest.mark.parametrize(("unseen", "said"), [(0.03, False), (0.06, True)])
def test_a_difference_within_what_the_sensor_leaves_open_is_named(tmp_path, capsys, unseen, said):
    a = study(tmp_path / "a")
    assert compared(a, study(tmp_path / "b", level=1.05, hour=13, unseen=unseen))
    lines = [line for line in capsys.readouterr().out.splitlines() if TOKEN in line]
    assert all("differ" in line for line in lines)
    text = "4 runs; less than what the sensor leaves open, ±6.0 %"
    assert [text in line for line in lines] == [said, said]


def test_studies_of_two_energy_methods_are_said_to_be(tmp_path, capsys):
    a = study(tmp_path / "a", part=".25")
    b = study(tmp_path / "b", hour=13, part=".25", provenance={"energy_method": 3})
    assert compared(a, b)
    sentence = f"computed by unlike methods of the meter, 3 and {METHOD}: they may differ"
    assert sentence in capsys.readouterr().out
    results([a, b], group_by="pytorch.batch_size")
    assert sentence in capsys.readouterr().err
    results([a, b], group_by="pytorch.batch_size", metric="throughput")
    assert sentence not in capsys.readouterr().err
    assert compared(a, study(tmp_path / "c", hour=14, part=".25"))
    assert "unlike methods" not in capsys.readouterr().out


def test_what_all_pairs_together_leave_open_says_what_would_decide_it(tmp_path, capsys):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", level=1.012, hour=13)
    compare(str(a), str(b), study=None, fail_if=[], as_json=True)
    rows = [row for row in json.loads(capsys.readouterr().out) if row["metric"] == TOKEN]
    assert [row["label"] for row in rows] == ["batch_size=1", "batch_size=8"]
    assert all(row["p_holm"] >= 0.05 and row["cycles_to_decide"] > 4 for row in rows)
    assert all(row["p"] < 0.05 for row in rows)


def test_the_guard_says_what_held(tmp_path, capsys):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", level=1.05, hour=13)
    assert not compared(a, b, f"{TOKEN} > 1.02")
    assert f"batch_size=1: {TOKEN} > 1.02 holds, the ratio is 1.05" in capsys.readouterr().err
    assert compared(a, b, f"{TOKEN} > 1.06", f"{TOKEN}<1")


def test_a_guard_that_has_nothing_to_test_is_an_error(tmp_path):
    a, b = study(tmp_path / "a", cycles=1), study(tmp_path / "b", cycles=1)
    assert compared(a, b)
    with pytest.raises(ConfigurationError, match="needs two runs"):
        compared(a, b, f"{TOKEN} > 1.02")


def test_energies_of_two_meters_are_not_compared(tmp_path, capsys):
    a = study(tmp_path / "a")
    b = study(tmp_path / "b", kind="estimated", source="codecarbon")
    assert compared(a, b)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if TOKEN in line]
    assert len(lines) == 2
    assert (out.count("estimated by codecarbon"), out.count("as above")) == (2, 6)
    assert all("not compared" in line for line in lines)
    assert all("estimated by codecarbon" in line for line in lines)
    with pytest.raises(ConfigurationError, match="estimated by codecarbon"):
        compared(a, b, f"{TOKEN} > 1.02")


def test_a_side_whose_runs_are_in_no_mean_is_named(tmp_path, capsys):
    a = study(tmp_path / "a")
    b = study(tmp_path / "b", validity=["other_process"])
    assert compared(a, b)
    lines = [line for line in capsys.readouterr().out.splitlines() if TOKEN in line]
    assert len(lines) == 2
    assert all("4 and 0 runs are in the means" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["energy > 1", f"{TOKEN} = 1", f"{TOKEN} > x", "", "__import__ > 1"]
)
def test_a_bad_condition_is_refused(text):
    with pytest.raises(ConfigurationError, match="--fail-if"):
        parse_condition(text)


def test_what_has_nothing_in_common_is_said(tmp_path):
    a = study(tmp_path / "a")
    write_runs(tmp_path / "b", make_plan([{"model": "other"}], []))
    write_tables(tmp_path / "b", partial=False)
    with pytest.raises(ConfigurationError, match="no experiment in common"):
        compared(a, tmp_path / "b")
    with pytest.raises(ConfigurationError, match="no experiment of the study begins with zz"):
        compared("zz", "zz", within=a)


def test_what_unpaired_runs_of_one_side_share_is_said_to_look_alike(tmp_path, capsys):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", level=1.05, hour=13)
    ids = [run["experiment"] for run in json.loads((a / "plan.json").read_text())["runs"]]
    assert compared(a, b)
    assert "in no interval and looks like an effect" in capsys.readouterr().out
    assert compared(ids[0], ids[1], within=a)
    assert "looks like an effect" not in capsys.readouterr().out


def test_an_experiment_with_the_same_setting_in_force_on_both_sides_is_compared(tmp_path, capsys):
    account = {"batch_size": 8, "max_num_seqs": 8}
    environment = {"host": "node-1", "gpus": [], "engine": {"resolved_config": account}}
    config = {"model": "tiny-llama", "backend": "vllm", "vllm": {"engine": {"max_num_seqs": 8}}}
    for name, hour in (("a", 12), ("b", 13)):
        plan = make_plan([config], ["vllm.engine.max_num_seqs"], cycles=4)
        write_plan(tmp_path / name, plan)
        for run in plan["runs"]:
            energy_j = 1000 * (1.05 if name == "b" else 1.0) * NOISE[run["cycle"] - 1]
            began = {"recording": {"started_at": f"2026-03-01T{hour}:0{run['order']}:00+00:00"}}
            how = {"energy_j": energy_j, "environment": environment, "provenance": began}
            write_result(tmp_path / name, make_result(run, **how), plan["swept"])
        write_tables(tmp_path / name, partial=False)
    assert compared(tmp_path / "a", tmp_path / "b")
    out = capsys.readouterr().out
    assert "1.05" in out
    assert "not compared" not in out


def asked_for_more(folder: Path, *, finished: bool) -> None:
    """Let the plan ask for a cycle more than the tables have, and finish its runs or not."""
    plan = make_plan(CONFIGS, ["pytorch.batch_size"], cycles=5)
    write_plan(folder, plan)
    for run in plan["runs"][-2:] if finished else []:
        write_result(folder, make_result(run, energy_j=5000.0), plan["swept"])


@pytest.mark.parametrize("finished", [True, False])
def test_tables_that_are_behind_the_plan_are_said_to_be_and_are_no_guard(
    tmp_path, capsys, finished
):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", hour=13)
    assert compared(a, b, f"{TOKEN} > 1.5")
    assert capsys.readouterr().err == ""
    asked_for_more(b, finished=finished)
    assert compared(a, b)
    assert f"tables of {b} know 8 of 10 planned runs" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="llem report"):
        compared(a, b, f"{TOKEN} > 1.5")


def test_runs_that_finished_after_their_tables_were_written_are_said(tmp_path, capsys):
    a, b = study(tmp_path / "a"), study(tmp_path / "b", hour=13)
    asked_for_more(b, finished=False)
    write_tables(b, partial=True)
    assert compared(a, b, f"{TOKEN} > 1.5")
    asked_for_more(b, finished=True)
    assert compared(a, b)
    assert f"2 runs of {b} have completed since its tables were written" in capsys.readouterr().err


def test_an_experiment_that_only_one_side_has_is_named(tmp_path, capsys):
    a, b = study(tmp_path / "a"), tmp_path / "b"
    write_runs(b, make_plan([CONFIGS[0], {"model": "other"}], []))
    write_tables(b, partial=False)
    assert compared(a, b)
    notes = capsys.readouterr().err.splitlines()
    assert notes == [
        f"1 experiment of {a} is not in {b} and not compared: batch_size=8",
        f"1 experiment of {b} is not in {a} and not compared: other",
    ]


def test_what_differs_apart_from_settings_stands_in_the_last_column(tmp_path, capsys):
    engines = [{"host": "node-1", "engine": {"versions": {"torch": digit}}} for digit in "12"]
    a = study(tmp_path / "a", environment=engines[0])
    b = study(tmp_path / "b", environment=engines[1], hour=13)
    assert compared(a, b)
    lines = [line for line in capsys.readouterr().out.splitlines() if TOKEN in line]
    assert all("unpaired, 4 and 4 runs; differ in engine_version" in line for line in lines)


def test_a_verdict_says_what_the_sensor_may_not_see(tmp_path, capsys):
    for name, codes in (("seen", ()), ("unseen", ("undersampled",))):
        one = study(tmp_path / f"{name}-a", validity=codes)
        assert compared(one, study(tmp_path / f"{name}-b", level=1.05, hour=13))
        text = capsys.readouterr().out
        assert "differ" in text
        assert ("In 8 of 16 runs nothing shows that the sensor saw all" in text) == bool(codes)


def test_an_experiment_without_a_run_in_the_table_has_a_row_with_the_reason(tmp_path, capsys):
    """Tables of two moments, as a copy that was made while one was written may hold them."""
    a, b = study(tmp_path / "a"), study(tmp_path / "b", hour=13)
    runs = pq.read_table(b / "runs.parquet")
    removed_id = runs["experiment"][0].as_py()
    pq.write_table(runs.filter(pc.field("experiment") != removed_id), b / "runs.parquet")
    compare(str(a), str(b), study=None, fail_if=[], as_json=True)
    rows = [row for row in json.loads(capsys.readouterr().out) if row["metric"] == TOKEN]
    assert sorted(row["ratio"] is None for row in rows) == [False, True]
    assert all(row["unavailable"] for row in rows if row["ratio"] is None)


@pytest.mark.parametrize("missing", [0, 1])
def test_runs_that_are_not_there_are_counted(tmp_path, capsys, missing):
    folder = study(tmp_path / "a")
    one, other = dict.fromkeys(row["experiment"] for row in table(folder, "runs"))
    for cycle in range(1, missing + 1):
        shutil.rmtree(folder / "runs" / other / str(cycle))
    write_tables(folder, partial=True)
    assert compared(one, other, within=folder)
    out = capsys.readouterr().out
    assert (
        "1 of 8 runs have no result or do not count: if they would have used more" in out
    ) == bool(missing)
    assert ("do not count" in out) == bool(missing)
