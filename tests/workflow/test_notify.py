"""Telling of a study's end: a real server on loopback, real commands, and no harm to the study."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from llenergymeasure.config.notify import Event, NotifyConfig, address_problem
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.workflow import notify
from llenergymeasure.workload.load_study import study_from_mapping
from support.listener import Listener, listening
from support.studies import SERVED, SMALL, llem, snakemake, write_study

TOKEN = "tok-8d1c0ffee"


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as server:
        yield server


def _told(
    asked: dict[str, Any],
    status: str = "completed",
    broken: str | None = None,
    results: str = "results/small",
) -> list[str]:
    messages: list[str] = []
    plan, folder = make_plan(study_from_mapping(SMALL)), StudyFolder(Path(results))
    section = NotifyConfig.model_validate(asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notify, "states", lambda *_: [{"status": status}] * 3)
        notify.notify_of_end(section, plan, folder, broken, messages.append)
    return messages


def test_a_webhook_gets_the_news_as_json(listener: Listener) -> None:
    hook = {"webhook": listener.address("/ok")}
    assert _told(hook) == []
    (notification,) = listener.heard
    assert notification["event"] == "finish"
    assert notification["study"] == "small"
    assert notification["runs"] == {"total": 3, "completed": 3}
    assert notification["text"] == "small: 3 of 3 runs completed"
    assert notification["results"] == str(Path("results/small").absolute())
    assert listener.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in listener.headers[0]
    # A name that is no text keeps nobody from being notified.
    assert _told(hook, results="results/m\udcfcller") == []
    assert listener.heard[1]["results"].endswith("results/m?ller")


def test_address_and_token_come_from_the_environment(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", listener.address("/ok"))
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    assert _told({"webhook_env": "HOOK", "token_env": "HOOK_TOKEN"}) == []
    assert listener.headers[0]["Authorization"] == f"Bearer {TOKEN}"


def test_only_what_was_asked_for_is_told(listener: Listener) -> None:
    only = {"webhook": listener.address("/ok"), "on": ["failure", "circuit_break"]}
    assert _told(only) == []
    assert listener.heard == []
    assert _told(only, "failed", broken="all alike") == []
    assert listener.events() == ["circuit_break"]
    assert listener.heard[0]["reason"] == "all alike"
    assert listener.heard[0]["text"] == "small: 0 of 3 runs completed. all alike"
    assert listener.heard[0]["failures"] == [{"status": "failed"}] * 3


@pytest.mark.parametrize("path", ["/slow", "/drip"])
def test_a_silent_or_dripping_server_is_given_up(listener: Listener, path: str) -> None:
    start_s = time.monotonic()
    (message,) = _told({"webhook": listener.address(path), "timeout_seconds": 0.2})
    assert time.monotonic() - start_s < 15
    assert message.startswith("notify: the webhook was not notified: ")
    assert "no answer" in message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(
    status: int, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    with listening(elsewhere=listener.address("/ok").replace("127.0.0.1", "localhost")) as first:
        (message,) = _told(
            {"webhook": first.address(f"/moved/{status}"), "token_env": "HOOK_TOKEN"}
        )
        assert first.events() == ["finish"]
    assert f"redirects ({status}) to localhost" in message
    assert listener.heard == []


def test_what_goes_wrong_is_one_line_without_address_or_token(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    address = listener.address("/broken/services/T0SECRET")
    (message,) = _told({"webhook": address, "token_env": "HOOK_TOKEN"})
    assert message == "notify: the webhook was not notified: 127.0.0.1 answered 500"
    with listening() as server:
        closed = server.address("/T0SECRET")
    (message,) = _told({"webhook": closed, "token_env": "HOOK_TOKEN"})
    assert message == "notify: the webhook was not notified: 127.0.0.1 cannot be reached " + (
        "(Connection refused)"
    )
    monkeypatch.setenv("HOOK", "http://example.com/T0SECRET")
    (message,) = _told({"webhook_env": "HOOK"})
    assert "must start with https://" in message
    assert "T0SECRET" not in message
    monkeypatch.delenv("HOOK")
    (message,) = _told({"webhook_env": "HOOK"})
    assert (
        message == "notify: the webhook was not notified: the environment variable HOOK is not set"
    )


def test_a_command_gets_the_news_on_its_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "news.json"
    program = "import os,sys; open(sys.argv[1], 'w').write(os.environ['LLEM_EVENT'] + '\\n' + "
    command = [sys.executable, "-c", program + "sys.stdin.read())", str(out)]
    assert _told({"command": command}) == []
    event, document = out.read_text().split("\n", 1)
    assert event == "finish"
    assert json.loads(document)["study"] == "small"


def test_a_command_that_fails_or_hangs_is_told_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = _told({"command": ["sh", "-c", "echo no mail here >&2; exit 7"]})
    assert message == "notify: the command was not notified: it ended with 7: no mail here"
    (message,) = _told({"command": ["no-such-program-xyz"]})
    assert "no-such-program-xyz cannot be run" in message
    start_s = time.monotonic()
    (message,) = _told({"command": ["sh", "-c", "sleep 60"], "timeout_seconds": 0.2})
    assert time.monotonic() - start_s < 30
    assert "not done within 0.2 s" in message
    monkeypatch.setenv("HOOK_TOKEN", TOKEN)
    loud = ["sh", "-c", "echo token is $HOOK_TOKEN >&2; exit 1"]
    message = _told(
        {"command": loud, "webhook": "http://127.0.0.1:9/x", "token_env": "HOOK_TOKEN"}
    )[1]
    assert TOKEN not in message


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/hook",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
        "ftp://localhost/",
        "file:///etc/passwd",
        "https://user:pass@example.com/",
        "https://",
        "https://exa mple.com/",
        "https://example.com:port/",
        "localhost:8000",
    ],
)
def test_addresses_elsewhere_must_be_https(address: str) -> None:
    assert address_problem(address) is not None
    with pytest.raises(ConfigurationError, match=r"notify\.webhook") as error:
        study_from_mapping({**SMALL, "notify": {"webhook": address}})
    assert address not in str(error.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://hooks.example.org/a?b=c",
        "http://localhost:8000/",
        "http://[::1]:8/",
        "http://127.9.9.9",
    ],
)
def test_https_and_this_machine_may_be_told(address: str) -> None:
    assert address_problem(address) is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "notifies nobody"),
        ({"webhook": "https://a.b", "webhook_env": "X"}, "not both"),
        ({"command": ["x"], "token_env": "X"}, "token_env"),
        ({"command": []}, "notify.command"),
        ({"command": "mail me"}, "notify.command"),
        ({"command": ["x"], "on": ["end"]}, "finish"),
        ({"command": ["x"], "timeout_seconds": 0}, "timeout_seconds"),
        ({"webook": "https://a.b"}, "did you mean notify.webhook"),
        ("https://a.b", "must be a mapping"),
    ],
)
def test_a_wrong_section_is_named(asked: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        study_from_mapping({**SMALL, "notify": asked})


def test_whom_to_tell_is_no_part_of_what_is_measured() -> None:
    plain = study_from_mapping(SMALL)
    notified = study_from_mapping({**SMALL, "notify": {"command": ["true"]}})
    assert [experiment.id for experiment in plain.experiments] == [
        experiment.id for experiment in notified.experiments
    ]


def _everything_written(folder: Path) -> str:
    kinds = (".json", ".jsonl", ".log", ".html", ".csv", ".txt")
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix in kinds]
    assert any(path.name == "snakemake.log" or ".snakemake" in path.parts for path in paths)
    return "\n".join(path.read_text(errors="replace") for path in paths)


@pytest.mark.slow
def test_llem_tells_of_finish_failure_and_a_broken_circuit(
    tmp_path: Path, listener: Listener
) -> None:
    hook = {"webhook_env": "HOOK", "token_env": "HOOK_TOKEN"}
    variables = {"HOOK": listener.address("/ok/T0SECRET"), "HOOK_TOKEN": TOKEN}
    study = write_study(tmp_path, **SERVED, notify=hook)
    result = llem(tmp_path, "run", str(study), variables=variables)
    assert result.returncode == 0, result.stderr
    assert listener.events() == ["finish"]
    result = llem(tmp_path, "run", str(study), variables=variables)
    assert "Nothing to be done" in result.stderr
    assert listener.events() == ["finish"]

    missing_model = {"model": "someone/no-such-model", "weights": "pretrained"}
    one = write_study(tmp_path, name="one", notify=hook, **missing_model)
    result = llem(
        tmp_path, "run", str(one), variables={**variables, "HOOK": listener.address("/broken")}
    )
    assert result.returncode == 1
    assert listener.events() == ["finish", "failure"]
    assert "notify: the webhook was not notified: 127.0.0.1 answered 500" in result.stderr
    assert listener.heard[1]["failures"][0]["status"] == "failed"

    many = write_study(
        tmp_path, name="many", notify=hook, sweep={"n": [1, 2, 3, 4, 5]}, **missing_model
    )
    result = llem(tmp_path, "run", str(many), variables=variables)
    assert result.returncode == 1
    assert listener.events()[2:] == ["circuit_break"]
    assert "failed the same way" in listener.heard[2]["reason"]
    assert set(listener.events()) <= set(get_args(Event))
    written = _everything_written(tmp_path) + result.stdout + result.stderr
    assert "T0SECRET" not in written
    assert TOKEN not in written


@pytest.mark.long
@pytest.mark.slow
def test_bare_snakemake_tells_too_and_a_dead_hook_fails_nothing(
    tmp_path: Path, listener: Listener
) -> None:
    hook = {"webhook_env": "HOOK", "token_env": "HOOK_TOKEN", "timeout_seconds": 2}
    study = write_study(tmp_path, **SERVED, notify=hook)
    variables = {"HOOK": listener.address("/slow/T0SECRET"), "HOOK_TOKEN": TOKEN}
    result = snakemake(tmp_path, "--configfile", str(study), variables=variables)
    assert result.returncode == 0, result.stderr
    assert listener.events() == ["finish"]
    assert "notify: the webhook was not notified" in result.stderr

    wrong = write_study(tmp_path, name="wrong", notify=hook, model="someone/no-such-model")
    variables["HOOK"] = listener.address("/ok/T0SECRET")
    failed = snakemake(tmp_path, "--configfile", str(wrong), variables=variables)
    assert failed.returncode == 1
    assert listener.events() == ["finish", "failure"]
    written = _everything_written(tmp_path)
    for text in (written, result.stdout, result.stderr, failed.stdout, failed.stderr):
        assert "T0SECRET" not in text
        assert TOKEN not in text
