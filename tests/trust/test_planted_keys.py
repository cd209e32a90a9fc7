"""Keys planted around a real study, and a server that writes back what it gets: they are nowhere.

What is searched is every file that the study, its workflow and its tables have left, Parquet
decoded, and what the commands have printed.
"""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llenergymeasure.backends.serving.process import free_port
from support import echoing_server
from support.studies import llem, write_study

SEEN = 12
"""Signs of a key in a row that are too many to have been seen."""


@pytest.mark.slow
def test_a_real_study(tmp_path: Path) -> None:
    port, heard = free_port(), tmp_path / "heard.txt"
    script = str(Path(echoing_server.__file__).resolve())
    canaries = {
        "MY_SERVER": "c4n4ry/1+" + secrets.token_hex(20),
        "HF_TOKEN": "hf_" + secrets.token_hex(17),
        "VLLM_CONFIG_TOKEN": "c4n4ry2" + secrets.token_hex(20),
        "CUDA_HOOK": "https://me:" + (in_url := "c4n4ry3" + secrets.token_hex(20)) + "@host/x",
        "MY_HOOK": "http://127.0.0.1:9/" + (in_path := "c4n4ry4" + secrets.token_hex(20)),
    }
    study = write_study(
        tmp_path,
        backend="openai",
        experiments=[
            {
                "openai": {
                    "base_url": f"http://127.0.0.1:{port}/v1",
                    "model": "m",
                    "api_key_env": "MY_SERVER",
                }
            },
            {
                "openai": {
                    "command": [sys.executable, script, "{port}", str(heard)],
                    "environment": {"SERVER_API_KEY": "{api_key}"},
                    "model": "m",
                    "metrics_path": "/metrics",
                    "gauges": {"running": "sim:running"},
                }
            },
        ],
        serving={"arrivals": "closed", "concurrency": 2},
        max_output_tokens=echoing_server.TOKENS,
        notify={"webhook_env": "MY_HOOK"},
        window={"min_seconds": 2.0},
    )
    results = tmp_path / "results" / "small"
    cache = {"LLEM_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen([sys.executable, script, str(port), str(heard)]) as server:
        try:
            result = llem(tmp_path, "run", str(study), variables={**canaries, **cache})
        finally:
            server.kill()
    outputs = [result.stdout + result.stderr]
    records = [json.loads(path.read_text()) for path in results.glob("runs/*/*/result.json")]
    assert len(records) == 2, outputs
    assert all(record["serving"]["failures"] for record in records)
    for command in ("status", "report", "verify", "plan"):
        place = str(study) if command == "plan" else str(results)
        result = llem(tmp_path, command, place, variables={**canaries, **cache})
        outputs.append(result.stdout + result.stderr)
    asked_with = {line for line in heard.read_text().split() if line}
    assert len(asked_with) == 2, "one key is of the environment, the other of the run"
    assert canaries["MY_SERVER"] in asked_with
    planted = {canaries["HF_TOKEN"], canaries["VLLM_CONFIG_TOKEN"], in_url, in_path, *asked_with}
    leaks = [
        f"{name} of {place}: {match[0]}"
        for place, text in [*enumerate(outputs), *_texts(tmp_path)]
        if place not in (heard, study)
        for key in planted
        for name, pattern in _patterns(key).items()
        if (match := pattern.search(text))
    ]
    assert leaks == []


def _patterns(key: str) -> dict[str, re.Pattern[str]]:
    """What a part of a key looks like in each of the forms."""
    patterns = {}
    for name, form in echoing_server.forms(key).items():
        wide = {"every sign in a url": 3, "every sign in json": 6, "html": 5}.get(name, 1)
        wide *= 2 if name.lower() == "hex" else 1
        bare = form.removeprefix("Bearer ") if name == "header" else form
        if name == "base64 within":
            bare = bare[12:-6]
        length = SEEN * wide
        parts = {
            re.escape(bare[start : start + length]) for start in range(0, len(bare) - length, wide)
        }
        patterns[name] = re.compile("|".join(parts), re.IGNORECASE)
    return patterns


def _texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield every file's path and content; of tables the cells too."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or "models" in path.parts:
            continue
        yield path, str(path.relative_to(folder))
        yield path, path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path, f"{table.to_pylist()} {table.schema.metadata}"
