"""What a study file may hold, and what it takes from its base."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from llenergymeasure.config import strict_yaml
from llenergymeasure.config.backends.pytorch import PyTorchConfig
from llenergymeasure.config.preferences import preferred_notify
from llenergymeasure.config.section import RunSection
from llenergymeasure.config.study_file import StudyFile
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import load_study, study_from_mapping


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "n"),
    [
        (b"\xef\xbb\xbfmodel: tiny-llama\nn: 4\n", 4),
        (b"model: tiny-llama\r\nn: 4\r\n", 4),
        (b"model: tiny-llama\rn: 4\r", 4),
        (b"model: tiny-llama\nn: 1e3\n", 1000),
        (b"model: tiny-llama\nn: 0x10\n", 16),
    ],
)
def test_a_file_as_editors_write_it(tmp_path: Path, text: bytes, n: int) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(text)
    (experiment,) = load_study(path).experiments
    assert experiment.model.n == n


def test_on_is_a_key_like_any_other(tmp_path: Path) -> None:
    text = "model: tiny-llama\nnotify: {webhook_env: W, on: [failure]}\n"
    notify = load_study(write(tmp_path, "s.yaml", text)).notify
    assert notify is not None
    assert list(notify.on) == ["failure"]


def test_notify_in_the_environment_takes_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLEM_NOTIFY", "{command: [cat], on: [failure]}")
    notify = preferred_notify(None)
    assert notify is not None
    assert list(notify.on) == ["failure"]


def test_a_variable_that_is_no_yaml_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLEM_NOTIFY", "{command: [cat]")
    with pytest.raises(ConfigurationError, match="LLEM_NOTIFY: is no valid YAML"):
        preferred_notify(None)


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("off", False), ("true", True)])
def test_words_for_booleans_are_read_where_one_is_asked_for(
    tmp_path: Path, word: str, value: bool
) -> None:
    text = f"model: NO\nname: no\ndecoder: {{do_sample: {word}}}\n"
    study = load_study(write(tmp_path, "s.yaml", text))
    assert study.experiments[0].model.decoder.do_sample is value
    assert (study.name, study.experiments[0].model.model) == ("no", "NO")


def test_what_a_site_declares_comes_from_a_base_as_far_as_the_study_does_not(
    tmp_path: Path,
) -> None:
    site = "name: site\nmodel: tiny-llama\ncarbon: {grid_gco2e_per_kwh: 300, pue: 1.5}\n"
    write(tmp_path, "site.yaml", site)
    text = "base: site.yaml\ncarbon: {grid_gco2e_per_kwh: 50}\n"
    study = load_study(write(tmp_path, "s.yaml", text))
    assert study.name == "s"
    assert study.sections["carbon"] == {"grid_gco2e_per_kwh": 50, "pue": 1.5}


class PlaceConfig(RunSection):
    rack: int


class WithPlace(StudyFile):
    place: PlaceConfig | None = None


def test_a_new_section_is_a_model_and_a_field() -> None:
    study = WithPlace.model_validate({"name": "s", "model": "tiny-llama", "place": {"rack": 3}})
    assert study.for_runs() == {"place": {"rack": 3}}
    assert study.shared == {"model": "tiny-llama"}
    schema = WithPlace.model_json_schema()
    assert schema["$defs"]["PlaceConfig"]["properties"]["rack"]["type"] == "integer"
    with pytest.raises(ValidationError, match=r"place.rack"):
        WithPlace.model_validate({"name": "s", "place": {"rack": "3"}})


def test_a_copy_of_a_section_works_its_values_out_anew() -> None:
    section = PyTorchConfig(batch_size=1)
    assert section.plain == {"batch_size": 1}
    assert section.model_copy(update={"batch_size": 2}).plain == {"batch_size": 2}
    assert section == PyTorchConfig(batch_size=1)


@pytest.mark.parametrize(
    "text",
    [
        "1234e56",
        "12e3",
        "1.5e3",
        "0o17",
        "0x1F",
        "017",
        "1_0",
        "on",
        "~",
        ".5",
        "=",
        "<<",
        "a\x85b",
        "a\u2028b",
    ],
)
def test_a_study_that_is_written_is_read_with_the_same_values(text: str) -> None:
    values = {"text": text, text: [text, 1, 1.5, 1e22, 1e-7, True, None]}
    assert strict_yaml.parse(strict_yaml.dump(values).encode())[0] == values


@pytest.mark.parametrize("value", ["!!bool yes", "!!bool 1", "!!null none"])
def test_a_tag_that_its_value_does_not_fit_is_an_error(tmp_path: Path, value: str) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"model: tiny-llama\npytorch: {{use_cache: {value}}}\n")
    with pytest.raises(ConfigurationError, match=r"study.yaml:2: pytorch.use_cache: is not what"):
        load_study(study)


def test_a_folder_below_home_is_not_one_that_is_called_tilde() -> None:
    study = study_from_mapping({"model": "tiny-llama", "output_dir": "~/results"})
    assert study.results_root == Path.home() / "results"
