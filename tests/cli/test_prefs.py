"""A user's own settings: set, shown with their origin, and who wins over whom."""

import json
from pathlib import Path

import pytest

from cli.commands import Call
from llenergymeasure.config.preferences import user_configuration
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload.load_study import load_study, study_from_mapping
from support.studies import SMALL, write_study


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    for name in ("LLEM_OUTPUT_DIR", "LLEM_NOTIFY", "LLEM_RUNNER_PYTORCH"):
        monkeypatch.delenv(name, raising=False)


def own(text: str) -> Path:
    path = user_configuration()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def _shown(call: Call, *arguments: str) -> dict[str, tuple[object, str]]:
    result = call("prefs", "--json", *arguments)
    assert result.code == 0, result.err
    return {
        setting["key"]: (setting["value"], setting["origin"]) for setting in json.loads(result.out)
    }


def test_environment_study_file_and_built_in_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    bare = write_study(tmp_path)
    assert _shown(call)["output_dir"] == ("results", "built in")
    assert load_study(bare).results_root == Path("results")

    own("output_dir: ~/energy\n")
    origin = f"file: {user_configuration()}"
    assert _shown(call)["output_dir"] == ("~/energy", origin)
    assert load_study(bare).results_root == Path.home() / "energy"

    full = write_study(tmp_path, output_dir="mine")
    shown = _shown(call, "--study", str(full))
    assert shown["output_dir"] == ("mine", f"study: {full}")
    assert load_study(full).results_root == Path("mine")

    monkeypatch.setenv("LLEM_OUTPUT_DIR", "/elsewhere")
    shown = _shown(call, "--study", str(full))
    assert shown["output_dir"] == ("/elsewhere", "environment: LLEM_OUTPUT_DIR")
    assert load_study(full).results_root == Path("/elsewhere")


def test_whom_to_tell(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    own("notify: {webhook_env: HOOK}\n")
    section = study_from_mapping(SMALL).notify
    assert section is not None
    assert section.webhook_env == "HOOK"
    assert _shown(call)["notify"][0] == "the webhook in HOOK"
    own_section = study_from_mapping({**SMALL, "notify": {"command": ["true"]}}).notify
    assert own_section is not None
    assert own_section.command == ["true"]
    monkeypatch.setenv("LLEM_NOTIFY", "none")
    assert study_from_mapping(SMALL).notify is None
    assert _shown(call)["notify"] == ("nobody", "environment: LLEM_NOTIFY")
    monkeypatch.setenv("LLEM_NOTIFY", "{webhook: 'http://example.com/T0SECRET'}")
    with pytest.raises(ConfigurationError, match=r"LLEM_NOTIFY\.webhook") as error:
        study_from_mapping(SMALL)
    assert "T0SECRET" not in str(error.value)
    monkeypatch.setenv("LLEM_NOTIFY", "{webhook: 'https://example.com/T0SECRET'")
    with pytest.raises(ConfigurationError, match="LLEM_NOTIFY: is no valid YAML") as error:
        study_from_mapping(SMALL)
    assert "T0SECRET" not in str(error.value)


def test_an_address_is_not_shown(call: Call) -> None:
    address = "https://hooks.example.org/T0SECRET"
    own(f"notify: {{webhook: '{address}'}}\n")
    result = call("prefs")
    assert "a webhook" in result.out
    assert f"{user_configuration()} holds your own settings" in result.err
    assert "T0SECRET" not in result.out + result.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("runers: {}\n", "did you mean runners?"),
        ("output_dir: 3\n", "output_dir: must be text"),
        ("notify: {}\n", "notifies nobody"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "no valid YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str, told: str, call: Call) -> None:
    path = own(text)
    result = call("prefs")
    assert result.code == 2
    assert told in result.err
    assert f"{path}:{2 if 'YAML' in told else 1}: " in result.err
    assert path.read_text() == text


def test_a_folder_in_the_environment_need_not_be_utf_8(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("LLEM_OUTPUT_DIR", "/tmp/\udcff")
    result = call("prefs")
    assert result.code == 0, result.err
    assert "environment: LLEM_OUTPUT_DIR" in result.out
    assert _shown(call)["output_dir"] == ("/tmp/\udcff", "environment: LLEM_OUTPUT_DIR")


def test_what_stands_in_the_files_place_is_named(call: Call) -> None:
    own("").unlink()
    user_configuration().mkdir()
    result = call("prefs")
    assert result.code == 2
    assert "is a folder" in result.err
