"""Python programs that begin with what is slow to import: forks of a process that has it."""

import functools
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIMIT_S = 60.0

AT_START = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH")
"""Variables that count when Python starts, and not again after a fork."""


def run_forked(
    code: str, variables: Mapping[str, str], *arguments: str, modules: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    """Do as ``sim.run_python`` does, in a process that has imported these modules before.

    What looks at its own modules, threads or command line wants a process of its own.
    """
    start = tuple((name, variables[name]) for name in AT_START if name in variables)
    server = _server(start, modules)
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        output_files = [Path(folder, name) for name in ("stdout", "stderr")]
        request = {
            "code": code,
            "arguments": ["-c", *arguments],
            "variables": dict(variables),
            "folder": str(Path.cwd()),
            "said": [str(path) for path in output_files],
        }
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            ready, _, _ = select.select([server.stdout], [], [], LIMIT_S)
            assert ready, f"no answer within {LIMIT_S:g} s"
            returned = json.loads(server.stdout.readline())
        except BaseException:  # it may answer later, and that would count as the next one's answer
            server.kill()
            _server.cache_clear()
            raise
        out, err = (path.read_text() for path in output_files)
    return subprocess.CompletedProcess(code, returned, out, err)


@functools.cache
def _server(
    start: tuple[tuple[str, str], ...], modules: tuple[str, ...]
) -> "subprocess.Popen[str]":
    """Start a process that ends when its standard input does, with the last of this process."""
    base_environment = {name: value for name, value in os.environ.items() if name not in AT_START}
    return subprocess.Popen(
        [sys.executable, __file__, *modules],
        env={**base_environment, **dict(start)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _serve(modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run_request(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


def _run_request(request: dict[str, Any]) -> None:
    """Be the program that is asked for, to its end."""
    for number, path in enumerate(request["said"], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["folder"])
    sys.argv = request["arguments"]
    returned = 0
    try:
        exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        returned = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        returned = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(returned)


if __name__ == "__main__":
    _serve(sys.argv[1:])
