"""A process that calls the real nvidia-ml-py on request, and the handle to it.

The library reads its environment when it is loaded, so each environment needs a process of its
own; with this one a test can step the clock between two calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


class NvmlError(Exception):
    """NVML answered with `code` (an NVML_ERROR_* number)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"NVML error {code}")
        self.code = code


class Reader:
    """A process with the simulated card loaded; `stderr` holds what it printed, after the end."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=dict(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.stderr = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> int:
        """End the process and return its exit code."""
        with contextlib.suppress(BrokenPipeError, ValueError):
            _, self.stderr = self._process.communicate(timeout=30)
        return self._process.returncode

    def call(self, function: str, *arguments: Any, device: int | None = 0) -> Any:
        """Call nvidia-ml-py's `function` on a card (on none with device=None).

        Raises:
            NvmlError: NVML answered with an error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"function": function, "arguments": arguments, "device": device}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the reader ended with {self.close()}: {self.stderr}")
        reply = json.loads(line)
        if "error" in reply:
            raise NvmlError(reply["error"])
        return reply["value"]

    def power_mw(self, device: int = 0) -> int:
        """What nvmlDeviceGetPowerUsage shows."""
        return int(self.call("nvmlDeviceGetPowerUsage", device=device))

    def energy_mj(self, device: int = 0) -> int:
        """What nvmlDeviceGetTotalEnergyConsumption shows."""
        return int(self.call("nvmlDeviceGetTotalEnergyConsumption", device=device))

    def fields(self, *ids: int | tuple[int, int], device: int = 0) -> list[dict[str, Any]]:
        """nvmlDeviceGetFieldValues; each value also as `number`, read by its type."""
        values = self.call("nvmlDeviceGetFieldValues", list(ids), device=device)
        assert isinstance(values, list)
        return values


def _plain(value: Any) -> Any:
    """NVML's answer as JSON."""
    if isinstance(value, ctypes.Structure):
        members = {str(item[0]): _plain(getattr(value, item[0])) for item in value._fields_}
        if "valueType" in members:
            names = {1: "uiVal", 3: "ullVal"}
            name = names.get(members["valueType"])
            members["number"] = members["value"][name] if name else None
        return members
    if isinstance(value, ctypes.Union):
        return {str(item[0]): getattr(value, item[0]) for item in value._fields_}
    if isinstance(value, (list, tuple, ctypes.Array)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dict__"):
        return vars(value)
    return value


def _serve() -> None:
    import pynvml

    handles: dict[int, Any] = {}
    started = False
    for line in sys.stdin:
        request = json.loads(line)
        arguments = [tuple(a) if isinstance(a, list) else a for a in request["arguments"]]
        if request["function"] == "nvmlDeviceGetFieldValues":
            arguments = [[tuple(i) if isinstance(i, list) else i for i in arguments[0]]]
        try:
            if not started:
                pynvml.nvmlInit()
                started = True
            index = request["device"]
            if index is not None and index not in handles:
                handles[index] = pynvml.nvmlDeviceGetHandleByIndex(index)
            target = [] if index is None else [handles[index]]
            reply = {"value": _plain(getattr(pynvml, request["function"])(*target, *arguments))}
        except pynvml.NVMLError as error:
            reply = {"error": error.value}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    _serve()
