"""Against a server on loopback that answers as the hub does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.hub import built_in_suggestion
from llenergymeasure.workload.models.resolve import measured_commit, resolve_model
from support import web
from support.hub import COMMIT, offer_model

REFUSALS = {
    "gated": (403, "GatedRepo"),
    "missing": (401, "RepoNotFound"),
    "revisionless": (404, "RevisionNotFound"),
    "fileless": (404, "EntryNotFound"),
}
CONFIG = {"model_type": "llama", "vocab_size": 7}

CODE = """
import json
import sys
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.hub import fetch_config
for name in sys.argv[1:]:
    try:
        print(json.loads(fetch_config("owner/" + name, None).read_text()))
    except BackendError as error:
        print(error)
"""


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


@pytest.fixture
def hub() -> Iterator[str]:
    with web.serving(Hub) as port:
        yield f"http://127.0.0.1:{port}"


def ask(home: Path, endpoint: str, *names: str, **environment: str) -> list[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.run(
        [sys.executable, "-c", CODE, *names],
        env={**inherited, **ours, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return process.stdout.splitlines()


def test_why_a_model_cannot_be_had(hub: str, tmp_path: Path) -> None:
    gated, missing, revision, file = ask(tmp_path, hub, *REFUSALS)
    assert "owner/gated is gated" in gated
    assert "HF_TOKEN" in gated
    assert "owner/missing is not on the hub" in missing
    assert "has no revision" in revision
    assert "has no config.json" in file


def test_a_model_that_is_there_works_offline_afterwards(hub: str, tmp_path: Path) -> None:
    assert ask(tmp_path, hub, "there") == [str(CONFIG)]
    assert ask(tmp_path, hub, "there", HF_HUB_OFFLINE="1") == [str(CONFIG)]


def test_which_commit_was_measured_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch moves on, and its name does not say which weights it meant."""
    offer_model(tmp_path, "owner/there")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert resolve_model(ExperimentConfig(model="owner/there")).commit == COMMIT
    assert resolve_model(ExperimentConfig(model="tiny-llama")).commit is None
    server = ExperimentConfig.model_validate(
        {"model": "owner/there", "backend": "openai", "openai": {"base_url": "http://127.0.0.1:1"}}
    )
    assert measured_commit(server, resolve_model(server)) is None  # it may have loaded another


def test_offline_is_said(tmp_path: Path) -> None:
    (offline,) = ask(tmp_path, "http://127.0.0.1:9", "there", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids" in offline


def test_a_model_that_is_there_in_another_revision_is_said_to_be(tmp_path: Path) -> None:
    """As it is where only a commit was downloaded, and no branch points to it."""
    commit = "c" * 40
    there = tmp_path / "hub" / "models--owner--there" / "snapshots" / commit
    there.mkdir(parents=True)
    (there / "config.json").write_text(json.dumps(CONFIG))
    (offline,) = ask(tmp_path, "http://127.0.0.1:9", "there", HF_HUB_OFFLINE="1")
    assert f"in other revisions alone, {commit}" in offline
    assert "pytorch.revision" in offline


def test_a_misspelt_built_in_name_is_asked_for() -> None:
    assert built_in_suggestion("tinyllama") == "; did you mean tiny-llama?"
    assert built_in_suggestion("somebody/tiny-lama") == built_in_suggestion("my-own-model-7") == ""


@pytest.mark.slow
def test_unreachable_is_said(tmp_path: Path) -> None:
    (unreachable,) = ask(tmp_path, "http://127.0.0.1:9", "there")
    assert "cannot be reached" in unreachable
    assert "tiny-llama" in unreachable


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


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "llama"}'])
def test_a_damaged_config_from_the_hub_is_named(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    monkeypatch.setattr(
        "llenergymeasure.workload.models.resolve.fetch_config", lambda _name, _revision: path
    )
    with pytest.raises(BackendError, match=r"config\.json"):
        resolve_model(ExperimentConfig.model_validate({"model": "some/model"}))
