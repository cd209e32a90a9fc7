"""Keys and counts of servers that a run starts, on servers that speak as the engines' do."""

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.engine import read_gauges
from llenergymeasure.backends.serving.process import ServerProcess, free_port, key_for
from llenergymeasure.backends.sglang import arguments as sglang
from llenergymeasure.backends.tensorrt import arguments as tensorrt
from llenergymeasure.config.experiment import ExperimentConfig

SGLANG = '''
"""As SGLang 0.5.23: options from a YAML file, and a key for all but health and metrics."""

import argparse
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml

parser = argparse.ArgumentParser()
for name in ("host", "port", "config", "api-key"):
    parser.add_argument(f"--{name}")
known, _ = parser.parse_known_args()
if known.config:
    assert known.config.endswith(".yaml")
    told = yaml.safe_load(Path(known.config).read_text())
    words = [word for name, value in told.items() for word in (f"--{name}", str(value))]
    known = parser.parse_args(words, known)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        given = self.headers.get("Authorization") == f"Bearer {known.api_key}"
        is_open = known.api_key is None or self.path.startswith(("/health", "/metrics"))
        self.send_response(200 if given or is_open else 401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")


HTTPServer((known.host, int(known.port)), Handler).serve_forever()
'''


def experiment(backend: str, **engine: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {"model": "tiny-llama", "backend": backend, backend: {"engine": engine}}
    )


def status(base_url: str, key: str | None) -> int:
    async def ask() -> int:
        client = StreamingClient(base_url, key)
        code, _ = await client.get("/v1/models")
        await client.close()
        return code

    return asyncio.run(ask())


def test_sglang_s_server_takes_the_key_of_its_run_out_of_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sglang").mkdir()
    (tmp_path / "sglang/launch_server.py").write_text(SGLANG)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LLEM_SERVER_KEY", "")
    private = tmp_path / "tmp"
    private.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(private))
    command = sglang.server_command(experiment("sglang"), free_port())
    key = key_for(command)
    assert key
    running = ServerProcess(command, key)
    try:
        assert status(command.base_url, None) == 401
        assert status(command.base_url, key) == 200
        (folder,) = private.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        lines = [
            path.read_bytes()
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if path.parent.exists()
        ]
        assert any(str(folder).encode() in line for line in lines)
        assert not any(key.encode() in line for line in lines)
    finally:
        running.close()
    assert not list(private.iterdir())


def test_several_tokenizers_of_sglang_take_no_key() -> None:
    command = sglang.server_command(experiment("sglang", tokenizer_worker_num=2), 1)
    assert "--config" not in command.argv
    assert key_for(command) is None


def test_tensorrt_s_count_is_read_where_it_publishes_one() -> None:
    assert tensorrt.server_command(experiment("tensorrt"), 1).metrics_path is None
    command = tensorrt.server_command(experiment("tensorrt", return_perf_metrics=True), 1)
    assert command.metrics_path == "/prometheus/metrics"
    page = """# TYPE trtllm_request_success_total counter
trtllm_request_success_total{engine_type="undefined",finished_reason="length",model_name="x"} 7.0
trtllm_request_success_total{engine_type="undefined",finished_reason="stop",model_name="x"} 2.0
"""
    assert read_gauges(page, command.gauges) == {"requests": 9.0}
