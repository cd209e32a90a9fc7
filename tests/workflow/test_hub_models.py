"""A model that is not here and cannot be fetched is said once, before anything runs."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.commands import Call
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import PreflightError
from llenergymeasure.run.preflight.forecast import _offline_source
from llenergymeasure.run.preflight.model_checks import check_models_available
from llenergymeasure.workload.models.hub import hub_cache
from support.hub import offer_model
from support.studies import llem, write_study


def config(model: str, **settings: Any) -> dict[str, Any]:
    return {"model": model, "backend": "pytorch", **settings}


@pytest.fixture
def nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.mark.usefixtures("nothing_listens")
def test_all_models_are_named_in_one_message() -> None:
    with pytest.raises(PreflightError, match=r"127\.0\.0\.1 cannot be reached") as error:
        check_models_available(
            [config("owner/one"), config("owner/one", precision="fp32"), config("gpt2")]
        )
    assert str(error.value).endswith("(found owner/one, gpt2)")


@pytest.mark.usefixtures("nothing_listens")
def test_a_misspelt_folder_is_asked_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("my-model", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PreflightError, match=r"; did you mean \./my-model\? \(found my-modle\)"):
        check_models_available([config("my-modle")])
    with pytest.raises(PreflightError, match=r"weights: random \(found owner/one\)"):
        check_models_available([config("owner/one")])


@pytest.mark.usefixtures("nothing_listens")
@pytest.mark.parametrize(
    "other", [config("tiny-llama"), config("owner/one", weights="random")], ids=["here", "random"]
)
def test_experiments_that_have_their_model_are_not_kept_from_it(other: dict[str, Any]) -> None:
    (line,) = check_models_available([config("owner/one"), other])
    assert "(found owner/one)" in line


@pytest.mark.usefixtures("nothing_listens")
def test_what_is_not_fetched_is_not_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "mine"
    folder.mkdir(parents=True)
    local_configs = [config("tiny-llama"), config(str(folder)), config("o/m", weights="random")]
    assert (
        check_models_available([*local_configs, {"model": "o/served", "backend": "openai"}]) == []
    )


@pytest.mark.usefixtures("nothing_listens")
def test_of_a_model_the_revision_that_is_asked_for_has_to_be_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_model(tmp_path, "owner/one")
    refs = tmp_path / "models--owner--one" / "refs"
    (refs / "main").rename(refs / "v1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pinned = {"pytorch": {"revision": "v1"}}
    assert check_models_available([config("owner/one", **pinned)]) == []
    assert _offline_source(ExperimentConfig.model_validate(config("owner/one", **pinned))) is None
    assert "from the hub" in str(
        _offline_source(ExperimentConfig.model_validate(config("owner/one")))
    )
    with pytest.raises(PreflightError, match="owner/one"):
        check_models_available([config("owner/one")])


@pytest.mark.usefixtures("nothing_listens")
def test_each_revision_of_a_model_is_looked_for_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_model(tmp_path, "owner/one")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    newest = config("owner/one")
    pinned = config("owner/one", pytorch={"revision": "step1000"})
    for both in ([newest, pinned], [pinned, newest]):
        (line,) = check_models_available(both)
        assert "(found owner/one at revision step1000)" in line
    with pytest.raises(PreflightError, match="owner/one at revision step1000"):
        check_models_available([pinned])


def test_a_hub_that_answers_is_left_to_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert check_models_available([config("owner/one")]) == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert check_models_available([config("owner/one")]) == []


def test_what_jobs_without_a_network_will_lack_is_said_and_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = {"pytorch": {"revision": "v2"}}
    configs = [config("owner/one"), config("tiny-llama"), config("owner/two", **pinned)]
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert check_models_available(configs, in_jobs=True) == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (line,) = check_models_available(configs, in_jobs=True)
    assert f"({hub_cache()})" in line
    assert "HF_HOME" in line
    assert "forbids to download: owner/one, owner/two at revision v2. Jobs" in line


@pytest.mark.usefixtures("nothing_listens")
@pytest.mark.parametrize("in_jobs", [False, True], ids=["here", "in jobs"])
def test_without_the_package_that_looks_no_model_is_said_to_be_lacking(
    monkeypatch: pytest.MonkeyPatch, in_jobs: bool
) -> None:
    for name in [each for each in sys.modules if each.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.setitem(sys.modules, name, None)
    if in_jobs:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    vllm = {"model": "owner/one", "backend": "vllm"}
    assert check_models_available([config("owner/one"), vllm], in_jobs=in_jobs) == []


@pytest.mark.usefixtures("nothing_listens")
def test_a_proxy_that_nothing_listens_at_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = os.environ["HF_ENDPOINT"]
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example.org")
    for address in (proxy, proxy.removeprefix("http://")):
        monkeypatch.setenv("http_proxy", address)
        with pytest.raises(PreflightError, match=r"the proxy 127\.0\.0\.1 cannot be reached"):
            check_models_available([config("owner/one")])
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{server.getsockname()[1]}")
        assert check_models_available([config("owner/one")]) == []
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:none")
    assert check_models_available([config("owner/one")]) == []
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("HF_ENDPOINT", "hub.example.org")
    assert check_models_available([config("owner/one")]) == []
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", proxy)
    with pytest.raises(PreflightError, match=r"and 127\.0\.0\.1 cannot be reached"):
        check_models_available([config("owner/one")])


@pytest.mark.usefixtures("nothing_listens")
def test_llem_run_says_it_in_one_line(tmp_path: Path, call: Call) -> None:
    result = call("run", str(write_study(tmp_path, model="owner/unknown")))
    assert result.code == 1
    assert result.err.count("owner/unknown") == 1
    assert "127.0.0.1 cannot be reached" in result.err
    assert not list((tmp_path / "results/small/runs").glob("*/*/outcome.json"))


def test_a_plan_does_not_ask_the_hub(tmp_path: Path) -> None:
    variables = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    models = ("owner/one", "gpt2", "no-owner")
    study = write_study(tmp_path, experiments=[{"model": model} for model in models])
    result = llem(tmp_path, "plan", str(study), variables=variables)
    assert result.returncode == 0, result.stderr
    assert all(model in result.stdout for model in models)
    assert "thrown while requesting" not in result.stderr
