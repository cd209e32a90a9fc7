"""Paths in a study file are relative to the file that names them."""

from pathlib import Path

import pytest

from llenergymeasure.workload.load_study import load_study


def test_files_beside_a_study_and_beside_its_base_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for folder in (tmp_path, shared):
        (folder / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
        (folder / "texts.txt").write_text("some words to be judged by\n")
    (shared / "base.yaml").write_text("quality: {texts: texts.txt}\n")
    study = tmp_path / "study.yaml"
    study.write_text(
        "base: shared/base.yaml\nmodel: tiny-llama\n"
        "sweep: {dataset: [prompts.jsonl, shared/prompts.jsonl, synthetic]}\n"
    )
    (tmp_path / "synthetic").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    read = load_study(Path("../study.yaml"))
    datasets = [experiment.config["dataset"] for experiment in read.experiments]
    assert datasets == ["../prompts.jsonl", "synthetic"]  # the two files are the same by content
    assert Path(read.sections["quality"]["texts"]) == elsewhere / "../shared/texts.txt"


def test_a_path_from_the_working_folder_is_still_found_and_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    (tmp_path / "studies" / "s.yaml").write_text(
        "model: tiny-llama\nsweep: {dataset: [prompts.jsonl, synthetic], n: [1, 2]}\n"
    )
    monkeypatch.chdir(tmp_path)
    read = load_study(Path("studies/s.yaml"))
    assert read.experiments[0].config["dataset"] == "prompts.jsonl"
    (note,) = read.notes
    assert note.startswith("dataset: prompts.jsonl is found from the working folder")
    assert "relative to studies/s.yaml" in note


@pytest.mark.parametrize("dataset", ["prompts.jsonl", "{folder}/prompts.jsonl", "synthetic"])
def test_a_path_that_means_the_same_from_anywhere_is_not_reported(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    dataset = dataset.format(folder=tmp_path)
    (tmp_path / "s.yaml").write_text(f"model: tiny-llama\ndataset: {dataset}\n")
    monkeypatch.chdir(tmp_path)
    assert load_study(Path("s.yaml")).notes == ()


def test_what_a_server_calls_its_model_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("studies/llama", "studies/qwen", "mistral"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "studies" / "s.yaml").write_text(
        "model: tiny-llama\nbackend: openai\n"
        "openai: {base_url: 'http://127.0.0.1:9/v1', body: {model: llama}}\n"
        "sweep: {openai.model: [llama, ./qwen, mistral, tiny-llama]}\n"
    )
    monkeypatch.chdir(tmp_path)
    read = load_study(Path("studies/s.yaml"))
    settings = [experiment.config["openai"] for experiment in read.experiments]
    names = [section["model"] for section in settings]
    assert names == ["llama", "./qwen", "mistral", "tiny-llama"]
    assert settings[0]["body"] == {"model": "llama"}
    assert read.notes == tuple(
        f"{key}: {name} is sent as written; earlier versions sent studies/{path}, under another id"
        for key, name, path in (
            ("openai.body.model", "llama", "llama"),
            *(("openai.model", "llama", "llama"), ("openai.model", "./qwen", "qwen")),
        )
    )
    monkeypatch.chdir("studies")
    (note,) = load_study(Path("s.yaml")).notes  # there ./qwen alone was sent otherwise
    assert note.startswith("openai.model: ./qwen is sent as written; earlier versions sent qwen,")


def test_every_example_names_its_files_relative_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = sorted((Path(__file__).parents[2] / "config" / "examples").glob("*.yaml"))
    assert examples
    for example in examples:
        assert load_study(example).notes == ()
