"""A study, a model's folder and a data set are data: reading them runs no code and goes nowhere."""

import json
import pickle
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError, LlemError
from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from llenergymeasure.workload.tokens import Tokenizer
from support.studies import SMALL


class Payload:
    """A pickle that makes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that there is once foreign code has run."""
    return tmp_path / "ran"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder of the test's own."""
    copied = tmp_path / "model"
    shutil.copytree(tiny_llama_folder(), copied)
    return copied


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch ran']",
        "!!python/object/new:os.system ['touch ran']",
        "!!python/name:os.system ''",
        "!!python/module:antigravity ''",
        "${{touch ran}}",
        "$(touch ran)",
        "{x: !!python/object/apply:pathlib.Path.touch [ran]}",
    ],
)
def test_a_study_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: Path, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("model", "name", "sweep", "passthrough_kwargs"):
        lines = {"model": "tiny-llama", key: value}
        path = tmp_path / "study.yaml"
        path.write_text("".join(f"{name}: {text}\n" for name, text in lines.items()))
        with suppress(ConfigurationError):
            make_plan(load_study(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["../x", "/tmp/x", "a/b", "..", ".", "", "a\0b", "a\nb", "~", "-x", "$HOME", "a/../../b"],
)
def test_a_study_s_name_is_one_folder_below_the_results(name: str) -> None:
    with suppress(ConfigurationError):
        study = study_from_mapping({**SMALL, "name": name})
        assert re.fullmatch(r"[A-Za-z0-9_~][A-Za-z0-9_.~-]*", study.name)


def test_code_that_comes_with_a_model_is_not_run(folder: Path, mark: Path) -> None:
    (folder / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\nclass Theirs: pass\n")
    for file, names in (
        ("config.json", ("AutoConfig", "AutoModelForCausalLM")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
        ("generation_config.json", ("AutoModelForCausalLM",)),
    ):
        path = folder / file
        outcome = json.loads(path.read_text()) if path.exists() else {}
        outcome["auto_map"] = dict.fromkeys(names, "theirs.Theirs")
        if file == "config.json":
            outcome["model_type"] = "theirs"
        path.write_text(json.dumps(outcome))
    config = ExperimentConfig.model_validate({"model": str(folder)})
    with pytest.raises(LlemError):
        registry.get("pytorch").load(config)
    with suppress(LlemError):
        Tokenizer(config)
    assert not mark.exists()


def test_pickled_weights_are_not_run(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Payload(mark)}))
    config = ExperimentConfig.model_validate({"model": str(folder)})
    with pytest.raises(LlemError):
        registry.get("pytorch").load(config)
    assert not mark.exists()
