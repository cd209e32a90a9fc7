"""What a study runs and sends is said before it does, and no study moves a server off loopback."""

from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import run_experiment, run_study
from llenergymeasure.backends.sglang import arguments as sglang
from llenergymeasure.backends.vllm import arguments as vllm
from llenergymeasure.cli import main
from llenergymeasure.cli.plan import plan_lines
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import make_plan
from llenergymeasure.plan.trust import trust_lines
from llenergymeasure.workload.load_study import study_from_mapping
from support.studies import write_study


def trust_text(**settings: Any) -> str:
    study = study_from_mapping({"model": "tiny-llama", **settings})
    return "\n".join(trust_lines(make_plan(study), study.notify))


VLLM = {"backend": "vllm"}
SERVER = {"backend": "openai"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"quality": {"command": ["sh", "-c", "touch owned"]}},
            "runs the command sh -c 'touch owned' after each run (quality.command)",
        ),
        ({"notify": {"command": ["mail", "me"]}}, "runs the command mail me at its end"),
        ({"notify": {"webhook": "https://x.example/secret"}}, "notifies x.example of its end"),
        (
            {"notify": {"webhook": "https://x.example/secret", "token_env": "HOME"}},
            "sends the variable HOME to x.example",
        ),
        ({"notify": {"webhook_env": "HOOK"}}, "notifies the address in HOOK of its end"),
        (
            {"pytorch": {"trust_remote_code": True}},
            "lets the model bring code: pytorch.trust_remote_code: True",
        ),
        ({**VLLM, "vllm": {"engine": {"worker_cls": "a.B"}}}, "loads code: vllm.engine.worker_cls"),
        (
            {**VLLM, "passthrough_kwargs": {"middleware": "a.b"}},
            "passthrough_kwargs.middleware: a.b",
        ),
        (
            {**VLLM, "passthrough_kwargs": {"reasoning_parser_plugin": "/x.py"}},
            "loads code: passthrough_kwargs.reasoning_parser_plugin: /x.py",
        ),
        (
            {**VLLM, "vllm": {"engine": {"kv_transfer_config": {"kv_connector_module_path": "a"}}}},
            "kv_transfer_config.kv_connector_module_path: a",
        ),
        *(
            ({**VLLM, "passthrough_kwargs": {name: value}}, f"code: passthrough_kwargs.{name}")
            for name, value in (
                ("worker-cls", "a.B"),
                ("distributed_executor_backend", "a.B"),
                ("kv_transfer_config", '{"kv_connector_module_path": "a"}'),
                ("compilation_config", '{"inductor_passes": {"p": "a.b"}}'),
                ("pylogging_config_file", "/theirs.json"),
                ("kv_transfer_config", r'{"kv_connector_m\u006fdule_path": "a"}'),
                ("several", ['{"module_path": "a"}', "b"]),
            )
        ),
        *(
            (
                {**VLLM, "vllm": {"engine": {"compilation_config": {name: value}}}},
                f"loads code: vllm.engine.compilation_config.{name}",
            )
            for name, value in (
                ("backend", "a.b"),
                ("cache_dir", "/theirs"),
                ("inductor_passes", {"p": "a.b"}),
            )
        ),
        (
            {**VLLM, "vllm": {"engine": {"speculative_config": {"method": "custom_class"}}}},
            "loads code: vllm.engine.speculative_config.method",
        ),
        (
            {"backend": "tensorrt", "tensorrt": {"engine": {"custom_tokenizer": "a.B"}}},
            "loads code: tensorrt.engine.custom_tokenizer: a.B",
        ),
        (
            {**VLLM, "vllm": {"engine": {"otlp_traces_endpoint": "grpc://x.example:4317"}}},
            "opens or asks an address: vllm.engine.otlp_traces_endpoint: grpc://x.example:4317",
        ),
        (
            {"backend": "sglang", "passthrough_kwargs": {"tool_server": "demo"}},
            "opens or asks an address: passthrough_kwargs.tool_server: demo",
        ),
        (
            {
                **SERVER,
                "openai": {
                    "command": ["{program}", "--port", "{port}", "--threads", "{threads}"],
                    "values": {"program": "./theirs", "threads": 4},
                    "environment": {"LD_PRELOAD": "/theirs.so"},
                },
            },
            "starts the server LD_PRELOAD=/theirs.so ./theirs --port '{port}' --threads",
        ),
        (
            {**SERVER, "openai": {"base_url": "http://127.0.0.1:8000", "api_key_env": "AWS_KEY"}},
            "sends the variable AWS_KEY to 127.0.0.1:8000 (openai.api_key_env)",
        ),
        (
            {
                **SERVER,
                "openai": {
                    "base_url": "http://x.example",
                    "api_key_env": "HOME",
                    "allow_remote": True,
                },
            },
            "sends the variable HOME to x.example, unencrypted",
        ),
        (
            {**SERVER, "openai": {"base_url": "http://x.example/v1", "allow_remote": True}},
            "sends its prompts to x.example (openai.base_url): only the energy",
        ),
    ],
)
def test_it_is_said(settings: dict[str, Any], line: str) -> None:
    assert line in trust_text(**settings)
    assert "/secret" not in trust_text(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"quality": {"texts": __file__}},
        {"pytorch": {"trust_remote_code": False}},
        {**VLLM, "vllm": {"engine": {"worker_cls": "auto", "enforce_eager": True}}},
        {**VLLM, "vllm": {"engine": {"distributed_executor_backend": "mp"}}},
        {**VLLM, "vllm": {"engine": {"compilation_config": {"mode": 3, "backend": "inductor"}}}},
        {**VLLM, "vllm": {"sampling": {"stop": ["http://", "{my_class"]}}},
        {
            **VLLM,
            "passthrough_kwargs": {"chat_template": "{% if webhook %}{{ plugin }}{% endif %}"},
        },
        {**VLLM, "passthrough_kwargs": {"logits_processors": []}},
        {**VLLM, "passthrough_kwargs": {"plugin_config": "{}"}},
        {**SERVER, "openai": {"base_url": "http://localhost:8000/v1"}},
    ],
)
def test_where_there_is_nothing_nothing_is_said(settings: dict[str, Any]) -> None:
    assert trust_text(**settings) == ""


class EndedError(Exception):
    """In place of the first run."""


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> None:
    """No study gets as far as its first run."""

    def ended(*_: Any) -> None:
        raise EndedError

    for module in ("api.running", "workflow.complete_study"):
        monkeypatch.setattr(f"llenergymeasure.{module}.SnakemakeProcess", ended)


@pytest.mark.usefixtures("driven")
def test_plan_and_run_say_it_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["touch", str(tmp_path / "owned")]
    study = study_from_mapping({"model": "tiny-llama", "quality": {"command": command}})
    lines = list(plan_lines(make_plan(study), None, study.notify))
    assert lines[-2:] == [
        "This study:",
        f"  runs the command {' '.join(command)} after each run (quality.command)",
    ]
    file = write_study(tmp_path, quality={"command": command})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["llem", "run", str(file)])
    with pytest.raises(EndedError):
        main()
    assert f"{lines[-1]}\n" in capsys.readouterr().err


@pytest.mark.usefixtures("driven")
def test_from_python_it_is_said_to_who_listens(tmp_path: Path) -> None:
    for run in (run_study, run_experiment):
        messages: list[str] = []
        settings = {"model": "tiny-llama", "quality": {"command": ["touch", "owned"]}}
        with pytest.raises(EndedError):
            run(settings, directory=tmp_path / run.__name__, progress=messages.append)
        assert "  runs the command touch owned after each run (quality.command)" in messages


LISTENERS = [
    ("host", "0.0.0.0"),
    ("hos", "0.0.0.0"),
    ("Host", "0.0.0.0"),
    ("port", 80),
    ("uds", "/tmp/s"),
    ("fd", 3),
    ("config", "other.yaml"),
    ("api-key", "x"),
    ("ssl_keyfile", "x"),
    ("max_num_seqs", "--uds=/tmp/s"),
    ("max_num_seqs", ["4", "--host", "0.0.0.0"]),
]


@pytest.mark.parametrize("backend", ["vllm", "sglang", "tensorrt"])
@pytest.mark.parametrize(("name", "value"), LISTENERS)
def test_no_argument_moves_the_listener(backend: str, name: str, value: Any) -> None:
    study = {"model": "tiny-llama", "backend": backend, "passthrough_kwargs": {name: value}}
    with pytest.raises(ConfigurationError, match="listens on this machine alone"):
        study_from_mapping(study)


OPENED = [
    ("vllm", "kv_events_config", {"publisher": "zmq"}),
    ("sglang", "kv_events_config", '{"publisher": "zmq"}'),
    ("sglang", "load_publish_endpoint", "tcp://*:6000"),
    ("sglang", "grpc_port", 5000),
    ("sglang", "gated_launch_port", 5000),
    ("sglang", "smg_http_sidecar_port", 5000),
]


@pytest.mark.parametrize(("backend", "name", "value"), OPENED)
def test_no_setting_opens_another_listener(backend: Any, name: str, value: Any) -> None:
    """Whoever connects to vLLM's or SGLang's events reads the prompts' tokens there."""
    dashed = name.replace("_", "-")
    for section in (
        {backend: {"engine": {name: value}}},
        {"passthrough_kwargs": {dashed: value}},
        {"passthrough_kwargs": {f"{dashed}.publisher": "zmq"}},
    ):
        with pytest.raises(ConfigurationError, match="listens on this machine alone"):
            study_from_mapping({"model": "tiny-llama", "backend": backend, **section})


@pytest.mark.parametrize(("backend", "server"), [("vllm", vllm), ("sglang", sglang)])
def test_ours_is_the_last_word(backend: Any, server: Any) -> None:
    config = ExperimentConfig(model="tiny-llama", backend=backend, passthrough_kwargs={"x": 1})
    command = server.server_command(config, 4321)
    host = command.argv.index("--host")
    assert command.argv[host : host + 4] == ("--host", "127.0.0.1", "--port", "4321")
    assert command.argv.index("--x") < host
    assert {"--x", "--host", "--port"}.isdisjoint(command.argv[host + 4 :])
