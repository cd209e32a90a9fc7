"""Studies that cannot be used: each message names file, key, what was found and what would do."""

from pathlib import Path

import pytest

from llenergymeasure.config import strict_yaml
from llenergymeasure.errors import EXIT_CONFIGURATION, ConfigurationError
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from support.malformed import CASES, Bad


@pytest.mark.parametrize("bad", CASES, ids=lambda bad: bad.name)
def test_message_says_where_what_and_what_would_do(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if bad.name in ("map bomb", "merge bomb"):  # the list bomb comes to the limit as it is
        monkeypatch.setattr(strict_yaml, "MAX_NODES", 5_000)
    path = Path("study.yaml")
    path.write_bytes(bad.text if isinstance(bad.text, bytes) else bad.text.encode())
    with pytest.raises(ConfigurationError) as caught:
        load_study(path)
    message = str(caught.value)
    assert caught.value.exit_code == EXIT_CONFIGURATION
    assert "study.yaml" in message
    for part in bad.said:
        assert part in message
    if bad.line is not None:
        assert f"study.yaml:{bad.line}:" in message
    assert "pydantic" not in message
    assert "http" not in message or "base_url" in message
    assert len(message) < 4000


@pytest.mark.parametrize(
    ("text", "unexpected"),
    [
        ("experiments: [{n_cycles: 3}]", "did you mean"),
        ("sweep: {cycles: [3]}", "did you mean"),
        ("experiments: [{grid: {n: [1]}}]", "did you mean"),
        ("exclude: []", "did you mean"),
        ("precision: auto", "fewer bits"),
        ("gpu: {devices: []}", "sweep"),
        ("dataset: [a, b]", "sweep"),
        ("lora: [a]", "sweep"),
        ('n: "1,5"', "without"),
        ('n: "1 000"', "without"),
    ],
)
def test_no_message_leads_to_what_is_refused_next(text: str, unexpected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        study_from_mapping({"model": "tiny-llama", **strict_yaml.parse(text.encode())[0]})
    assert unexpected not in str(caught.value)


def test_a_key_may_end_in_a_colon_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("model: tiny-llama\ndataset: arc\nchat:\n  arguments:\n    tool:x:\n")
    assert load_study(path).written["chat"] == {"arguments": {"tool:x": None}}


def test_a_target_decides_how_many_cycles_a_latin_square_has() -> None:
    execution = {"cycle_order": "latin_square", "precision_target": 0.02}
    study = {"model": "tiny-llama", "sweep": {"n": [1, 2, 3]}, "execution": execution}
    (note,) = study_from_mapping(study).notes
    assert note.endswith("of the 3 experiments, which a precision target does not see to")


def test_there_are_enough_cases() -> None:
    assert len({bad.name for bad in CASES}) == len(CASES) >= 60


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "model: tiny-llama\nprecison: bf16\nsweep: {n: []}\nrunners: {vlm: local}\nname: ../x\n"
        "execution: {n_cycles: 0, cycle_order: any}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_study(path)
    keys = {problem.key for problem in caught.value.problems}
    assert keys == {
        "precison",
        "sweep.n",
        "runners.vlm",
        "name",
        "execution.n_cycles",
        "execution.cycle_order",
    }
    assert {problem.line for problem in caught.value.problems} == {2, 3, 4, 5, 6}


def test_base_that_leads_back_names_the_file_that_closes_the_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\nmodel: x\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigurationError, match=r"b\.yaml:1: base: leads back to itself"):
        load_study(tmp_path / "a.yaml")


def test_problem_in_a_base_names_the_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: x\n\nprecision: fp8\n")
    (tmp_path / "study.yaml").write_text("base: base.yaml\nn: 4\n")
    with pytest.raises(ConfigurationError, match=r"base\.yaml:3: precision: must be one of"):
        load_study(tmp_path / "study.yaml")


def test_missing_study_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.yaml: no such file"):
        load_study(tmp_path / "gone.yaml")
    with pytest.raises(ConfigurationError, match="is a folder"):
        load_study(tmp_path)
