"""Against a server on loopback that answers as the hub does."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from huggingface_hub import constants

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.hub import built_in_suggestion, fetch_config
from llenergymeasure.workload.models.resolve import measured_commit, resolve_model
from support import web
from support.data_files import put
from support.hub import COMMIT, offer_model

REFUSALS = {
    "gated": (403, "GatedRepo"),
    "missing": (401, "RepoNotFound"),
    "revisionless": (404, "RevisionNotFound"),
    "fileless": (404, "EntryNotFound"),
}
CONFIG = {"model_type": "llama", "vocab_size": 7}


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        refusal = REFUSALS.get(self.path.split("/")[2])
        body = json.dumps(CONFIG).encode()
        if refusal is not None:
            self.send_response(refusal[0])
            self.send_header("X-Error-Code", refusal[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def ask(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Have the hub that is asked be there."""
    files = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A hub, and a cache of the test's own."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with web.serving(Hub) as port:
        ask(monkeypatch, port)
        yield


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gated", "owner/gated is gated.*HF_TOKEN"),
        ("missing", "owner/missing is not on the hub"),
        ("revisionless", "has no revision"),
        ("fileless", r"has no config\.json"),
    ],
)
def test_why_a_model_cannot_be_had(name: str, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        fetch_config(f"owner/{name}", None)


@pytest.mark.usefixtures("hub")
def test_a_model_that_is_there_works_offline_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(fetch_config("owner/there", None).read_text()) == CONFIG
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ask(monkeypatch, 9)
    assert json.loads(fetch_config("owner/there", None).read_text()) == CONFIG


def test_which_commit_was_measured_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch moves on, and its name does not say which weights it meant."""
    offer_model(tmp_path, "owner/there")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve_model(ExperimentConfig(model="owner/there")).commit == COMMIT
    assert resolve_model(ExperimentConfig(model="tiny-llama")).commit is None
    server = ExperimentConfig.model_validate(
        {"model": "owner/there", "backend": "openai", "openai": {"base_url": "http://127.0.0.1:1"}}
    )
    assert measured_commit(server, resolve_model(server)) is None  # it may have loaded another


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendError, match="HF_HUB_OFFLINE forbids"):
        fetch_config("owner/there", None)


def test_a_model_that_is_there_in_another_revision_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As it is where only a commit was downloaded, and no branch points to it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "c" * 40
    there = tmp_path / "models--owner--there" / "snapshots" / commit
    there.mkdir(parents=True)
    put(there / "config.json", CONFIG)
    with pytest.raises(BackendError, match=f"other revisions alone, {commit}.*pytorch.revision"):
        fetch_config("owner/there", None)


def test_a_misspelt_built_in_name_is_asked_for() -> None:
    assert built_in_suggestion("tinyllama") == "; did you mean tiny-llama?"
    assert built_in_suggestion("somebody/tiny-lama") == built_in_suggestion("my-own-model-7") == ""


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
def test_unreachable_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, 9)
    with pytest.raises(BackendError, match=r"cannot be reached.*tiny-llama"):
        fetch_config("owner/there", None)


@pytest.mark.parametrize("backend", ["vllm", "sglang"])
def test_an_engine_s_revision_is_the_one_looked_up(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def fetch(name: str, revision: str | None) -> Path:
        calls.append((name, revision))
        (tmp_path / "config.json").write_text('{"model_type": "unheard-of"}')
        return tmp_path / "config.json"

    monkeypatch.setattr("llenergymeasure.workload.models.resolve.fetch_config", fetch)
    config = ExperimentConfig.model_validate(
        {"model": "some/model", "backend": backend, backend: {"engine": {"revision": "abc"}}}
    )
    assert resolve_model(config).revision == "abc"
    assert calls == [("some/model", "abc")]


def test_a_damaged_config_from_the_hub_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = put(tmp_path / "config.json", "{")
    monkeypatch.setattr(
        "llenergymeasure.workload.models.resolve.fetch_config", lambda _name, _revision: path
    )
    with pytest.raises(BackendError, match=r"config\.json"):
        resolve_model(ExperimentConfig.model_validate({"model": "some/model"}))
