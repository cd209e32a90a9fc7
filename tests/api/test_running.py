"""Experiments and studies run from a program: real runs of the tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import (
    ConfigurationError,
    ExperimentResult,
    LlemError,
    RunFailedError,
    StudyLockedError,
    StudyResult,
    load_result,
    load_results,
    run_experiment,
    run_study,
)
from llenergymeasure.files import locked
from support.studies import SMALL

SETTINGS = {key: value for key, value in SMALL.items() if key not in ("name", "execution")}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def _file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_an_experiment_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    lines: list[str] = []
    carbon = {"grid_gco2e_per_kwh": 250.0, "source": "a test"}
    quality = {"command": ["echo", "0.5"]}
    result = run_experiment(**SETTINGS, carbon=carbon, quality=quality, progress=lines.append)
    assert isinstance(result, ExperimentResult)
    assert result.folder is None
    assert _file_names(temporary) == []
    assert _file_names(tmp_path) == ["temporary"]
    assert lines[0] == "This study:"
    assert "echo 0.5" in lines[1]
    # What else the machine does may be said beside it.
    *phases, last = [line for line in lines[2:] if not line.startswith("Note: ")]
    assert phases
    assert all(line.startswith("[1/1] tiny-llama, cycle 1: ") for line in (*phases, last))
    assert "per output token" in last

    assert result.kind in ("measured", "estimated")
    assert result.energy_j is not None
    assert result.energy_j > 0
    assert result.energy_per_output_token_j == pytest.approx(result.energy_j / result.output_tokens)
    assert result.energy_per_request_j is not None
    assert result.power_mean_w == pytest.approx(result.energy_j / result.window_s)
    assert result.output_tokens_per_s > 0
    assert result.energy_unavailable is None
    assert result.config["model"] == "tiny-llama"
    assert result.cycle == 1
    assert result.record.energy.footprint is not None
    assert result.record.energy.footprint.carbon_gco2e is not None
    assert result.record.quality is not None
    assert result.record.quality.score == 0.5
    assert len(result.samples()) > 0
    assert len(result.requests()) == result.record.tokens.requests
    assert json.loads(json.dumps(result.to_dict()))["experiment"] == result.experiment
    assert str(result).startswith("tiny-llama · pytorch · ")


@pytest.mark.slow
def test_an_experiment_is_kept_where_asked_and_not_measured_again(tmp_path: Path) -> None:
    study = tmp_path / "one.yaml"
    study.write_text(json.dumps({**SETTINGS, "n": 4}))
    first = run_experiment(study, directory="kept", n=2, pytorch={"batch_size": 2})
    assert first.folder is not None
    assert first.folder.is_relative_to(tmp_path / "kept")
    assert first.config["n"] == 2
    assert first.config["pytorch"]["batch_size"] == 2
    assert _file_names(tmp_path) == ["kept", "one.yaml"]
    again = run_experiment(study, directory="kept", n=2, pytorch={"batch_size": 2})
    assert again.record == first.record
    assert load_result(first.folder).record == first.record
    assert load_result(first.folder / "result.json").record == first.record


@pytest.mark.slow
def test_a_local_model_is_found_from_where_the_program_runs(tmp_path: Path) -> None:
    from llenergymeasure.workload.models.tiny import tiny_llama_folder

    (tmp_path / "model").symlink_to(tiny_llama_folder())
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "one two"}\n{"prompt": "three"}\n')
    local: dict[str, Any] = {"model": "./model", "dataset": "prompts.jsonl"}
    result = run_experiment({**SETTINGS, **local})
    assert result.config["model"] == str(tmp_path / "model")
    assert result.record.tokens.requests % 2 == 0


@pytest.mark.slow
def test_a_run_that_fails_is_told_with_its_log() -> None:
    with pytest.raises(RunFailedError, match="no-such-model") as error:
        run_experiment({**SETTINGS, "model": "someone/no-such-model"})
    assert error.value.status == "failed"
    assert error.value.phase == "preflight"
    assert "no-such-model" in error.value.log


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ({"model": "tiny-llama", "sweep": {"n": [1, 2]}}, {}, "describes 2; run_study"),
        (None, {}, "model: is missing"),
        (None, {"modle": "tiny-llama"}, "did you mean model"),
        ({"model": "tiny-llama"}, {"n": 0}, "n: must be at least 1"),
        (Path("gone.yaml"), {}, "gone.yaml: no such file"),
    ],
)
def test_settings_that_cannot_be_used_run_nothing(
    config: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_experiment(config, **settings)
    assert _file_names(tmp_path) == []


def test_a_damaged_data_set_is_refused_before_any_run(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n{"prompt":\n')
    config = {"model": "tiny-llama", "dataset": str(rows)}
    for make in (run_experiment, run_study):
        with pytest.raises(ConfigurationError, match=r"rows\.jsonl"):
            make(config, directory=tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_study_always_writes_where_asked_and_says_what_failed(tmp_path: Path) -> None:
    study = {
        **SMALL,
        "experiments": [
            {"precision": "fp32"},
            {"precision": "bf16", "lora": {"adapter_id": "someone/no-such-adapter"}},
        ],
    }
    lines: list[str] = []
    result = run_study(study, directory="there", progress=lines.append)
    assert isinstance(result, StudyResult)
    assert [run.config["precision"] for run in result.completed] == ["fp32"]
    (failed,) = result.failed
    assert (failed.status, failed.error_class, failed.cycle) == ("failed", "BackendError", 1)
    assert "no-such-adapter" in str(failed.error_message)
    assert failed.log.is_file()
    (failed_line,) = [line for line in lines if "failed in" in line]
    assert failed_line.startswith("[2/2] ")
    assert "BackendError" in failed_line
    assert str(result) == "small: 1 of 2 runs completed"
    assert result.paths.folder == tmp_path / "there" / "small"
    assert not (tmp_path / "results").exists()
    for path in (result.paths.plan, result.paths.runs, result.paths.summary, result.paths.report):
        assert path.is_file()
    assert sorted(result.runs["status"]) == ["completed", "failed"]
    assert list(result.summary["n"]) == [1, 0]
    assert load_results("there/small").name == "small"

    study["experiments"].pop()
    resumed = run_study(study, directory="there")
    assert resumed.failed == ()
    assert [run.record for run in resumed.completed] == [result.completed[0].record]
    with pytest.raises(ConfigurationError, match="sweep"):
        run_study({**SMALL, "sweep": {}})
    with locked(Path("there/small/.lock"), "a test"), pytest.raises(LlemError, match="in use"):
        run_study({**study, "n": 3}, directory="there")
    assert issubclass(StudyLockedError, LlemError)
