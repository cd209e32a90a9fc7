"""The machine at its plug: a BMC that speaks Redfish, a meter that logs, or a command.

Which one it is is in ``LLEM_NODE_METER``: ``redfish:https://BMC``, ``csv:FILE`` or
``command:PROGRAM ARGUMENTS``, which prints a power in W. It belongs to the machine and not to a
study. A BMC's user and password are in ``LLEM_NODE_USER`` and ``LLEM_NODE_PASSWORD``, and are sent
to it alone.

Redfish: DMTF DSP0266 and its schemas Power (PowerControl, PowerConsumedWatts) and, in newer BMCs,
EnvironmentMetrics (PowerWatts, EnergykWh).
"""

import base64
import contextlib
import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

from llenergymeasure.config.servers import is_loopback
from llenergymeasure.errors import ConfigurationError, Problem
from llenergymeasure.machine.web import WebError, send, with_deadline
from llenergymeasure.processes import ChildError, run_to_end, user_environment
from llenergymeasure.sensors.base import (
    Channel,
    Every,
    Quantity,
    Sensor,
    SensorError,
    SensorInfo,
    Value,
)
from llenergymeasure.sensors.watt_log import (
    NO_LINE,
    Columns,
    LoggedPower,
    monotonic_ns,
    parse_heading,
    parse_line,
)

NAME = "node"
DEVICE = "node"
VARIABLE, USER, PASSWORD = "LLEM_NODE_METER", "LLEM_NODE_USER", "LLEM_NODE_PASSWORD"

ANSWER_S = 3.0
"""A BMC or a command that takes longer has not answered."""
REPLY_BYTES = 1 << 20
"""No resource of a BMC has more."""
_MAX_CHASSIS = 16
_PACE = Every(1.0, speed="remote")

CLOCK_OFF_S = 60.0
"""A log whose newest line is further from now is not by this machine's clock."""
_TAIL_BYTES = 1 << 16
_J_PER_KWH = 3.6e6


class NodeSensor(Sensor):
    """The node's meter, if the environment names one."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Try the meter out once."""
        environ = os.environ if environ is None else environ
        setting = environ.get(VARIABLE, "")
        name, reason, remedy = "node", None, None
        channels = []
        if not setting:
            reason = "no meter of the whole node is named"
            remedy = f"{VARIABLE}=redfish:https://BMC, csv:FILE or command:PROGRAM names one"
        else:
            try:
                meter = _meter(setting, environ)
                name = f"node ({meter.name})"
                meter.read()
                channels = [Channel(DEVICE, NAME, meter.quantities, meter.read, _PACE)]
            except SensorError as error:
                reason, remedy = str(error), f"{VARIABLE} names this meter"
        info = SensorInfo(
            DEVICE,
            name,
            NAME,
            "measured",
            "node",
            quantities=channels[0].quantities if channels else (),
            unavailable=reason,
            remedy=remedy,
        )
        super().__init__([info], channels)


def _meter(setting: str, environ: Mapping[str, str]) -> "_Redfish | _Log | _Command":
    kind, _, target = setting.partition(":")
    with contextlib.suppress(ValueError):  # an address or a command line that is none
        if kind == "redfish" and _may_get_password(target):
            return _Redfish(target, environ.get(USER), environ.get(PASSWORD))
        if kind == "csv" and target:
            return _Log(Path(target).expanduser())
        if kind == "command" and target.strip():
            return _Command(shlex.split(target))
    # What is there is not repeated: it may hold a password.
    raise ConfigurationError(
        Problem(
            "needs redfish:https://BMC (user and password in "
            f"{USER} and {PASSWORD}), csv:FILE or command:PROGRAM",
            key=VARIABLE,
        )
    )


def _may_get_password(address: str) -> bool:
    """Return whether a password may go there: no other machine gets one in the clear."""
    parts = urlsplit(address)
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    return safe and bool(parts.hostname) and "@" not in address


class _Redfish:
    """A BMC. Each read is one request, so that nothing of a session is left behind."""

    name = "Redfish"

    def __init__(self, address: str, user: str | None, password: str | None) -> None:
        self._headers = {"Accept": "application/json"}
        if user is not None:
            credentials = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"
        self._last_count: tuple[float, int] | None = None
        resources = list(self._power_resources(address))
        if not resources:
            raise SensorError("no chassis of this BMC reports a power")
        if len(resources) > 1:
            names = ", ".join(path for path, _ in resources)
            raise SensorError(f"several chassis report a power, name one in the address: {names}")
        self._resource = resources[0][1]
        has_counter = _energy_j(self._get(self._resource)) is not None
        self.quantities: tuple[Quantity, ...] = ("power_usage_w",)
        self.quantities += ("energy_counter_j",) if has_counter else ()

    def read(self) -> Sequence[Value]:
        before_ns = time.monotonic_ns()
        reply = self._get(self._resource)
        watts, joules = _power_w(reply), _energy_j(reply)
        if watts is None:
            raise SensorError("the BMC gave no power")
        values = [Value("power_usage_w", watts)]
        if joules is not None:
            previous, self._last_count = self._last_count, (joules, before_ns)
            if previous is not None and joules != previous[0]:
                # The step lies between this reply and the one before.
                values.append(Value("energy_counter_j", joules, span_ns=before_ns - previous[1]))
        return values

    def _power_resources(self, address: str) -> Iterator[tuple[str, str]]:
        """Yield the chassis that report a power, and the resource that does for each."""
        path = urlsplit(address).path.strip("/")
        root = urljoin(address, "/redfish/v1/Chassis")
        members = [{"@odata.id": f"/{path}"}]
        if not path.startswith("redfish/v1/Chassis/"):
            members = _list(self._get(root).get("Members"))[:_MAX_CHASSIS]
        for member in members:
            chassis = _link(member)
            if chassis is None:
                continue
            content = self._get(urljoin(root, chassis))
            if _power_w(content) is not None:
                yield chassis, urljoin(root, chassis)
                continue
            for name in ("EnvironmentMetrics", "Power"):
                resource = _link(content.get(name))
                if resource is None:
                    continue
                if _power_w(self._get(urljoin(root, resource))) is not None:
                    yield chassis, urljoin(root, resource)
                    break

    def _get(self, address: str) -> dict[str, Any]:
        request = Request(address, headers=self._headers)  # noqa: S310 - http or https, checked
        try:
            answer = with_deadline(ANSWER_S, lambda: send(request, ANSWER_S, REPLY_BYTES))
            content = json.loads(answer)
        except WebError as error:
            raise SensorError(f"the BMC: {error}") from None
        except (ValueError, RecursionError):
            raise SensorError("the BMC answered something that is no JSON") from None
        if not isinstance(content, dict):
            raise SensorError("the BMC answered something that is no resource")
        return content


def _power_w(resource: Mapping[str, Any]) -> float | None:
    """Return the power that a resource reports: of Power's controls the first is the chassis."""
    controls = _list(resource.get("PowerControl"))[:1]  # those after it are parts
    powers_w = [part.get("PowerConsumedWatts") for part in controls if isinstance(part, dict)]
    return _positive(_excerpt(resource.get("PowerWatts")), *powers_w)


def _energy_j(resource: Mapping[str, Any]) -> float | None:
    kwh = _positive(_excerpt(resource.get("EnergykWh")))
    return None if kwh is None else kwh * _J_PER_KWH


def _excerpt(sensor: Any) -> Any:
    return sensor.get("Reading") if isinstance(sensor, dict) else None


def _positive(*values: Any) -> float | None:
    """Return the first that is a number and none below zero; a BMC that knows nothing gives 0."""
    for value in values:
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value) if math.isfinite(value) else None
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _link(member: Any) -> str | None:
    """Return where a reference leads: within this BMC alone."""
    path = member.get("@odata.id") if isinstance(member, dict) else None
    return path if isinstance(path, str) and path.startswith("/redfish/") else None


class _Log:
    """A file that a meter appends to; each line is at the time that it says."""

    quantities: tuple[Quantity, ...] = ("power_usage_w",)

    def __init__(self, path: Path) -> None:
        self.name = f"log {path.name}"
        self._path = path
        self._partial_line = b""
        try:
            with path.open("rb") as file:
                heading = file.readline(_TAIL_BYTES).decode(errors="replace")
                self._columns = parse_heading(heading) or Columns()
                self._offset = max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0)
        except (OSError, ValueError) as error:
            raise SensorError(f"{path.name}: {_reason(error)}") from error
        if not self.read():
            raise SensorError(f"{path.name} has {NO_LINE}")

    def read(self) -> Sequence[Value]:
        lines = self._new_lines()
        off_s = lines[-1].at_s - time.time() if lines else 0.0
        if abs(off_s) > CLOCK_OFF_S:
            where = "ahead of" if off_s > 0 else "behind"
            raise SensorError(
                f"the newest line of {self._path.name} is {abs(off_s):.0f} s {where} this "
                "machine's clock: the meter's clock is wrong, or it no longer writes"
            )
        return [Value("power_usage_w", line.watts, at_ns=monotonic_ns(line.at_s)) for line in lines]

    def _new_lines(self) -> list[LoggedPower]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    self._offset, self._partial_line = 0, b""  # begun again
                file.seek(self._offset)
                content = self._partial_line + file.read(_TAIL_BYTES)
                self._offset = file.tell()
        except OSError as error:
            raise SensorError(f"{self._path.name}: {_reason(error)}") from error
        complete, _, self._partial_line = content.rpartition(b"\n")
        self._partial_line = self._partial_line[-_TAIL_BYTES:]
        lines = complete.decode(errors="replace").splitlines()
        return [power for line in lines if (power := parse_line(line, self._columns)) is not None]


class _Command:
    """A program that prints a power in W, run for each reading."""

    quantities: tuple[Quantity, ...] = ("power_usage_w",)

    def __init__(self, command: Sequence[str]) -> None:
        self.name = f"command {Path(command[0]).name}"
        self._command = command

    def read(self) -> Sequence[Value]:
        try:
            call = run_to_end(
                self._command,
                ANSWER_S,
                environment=user_environment(),
                die_with_thread=True,
                name=self.name,
            )
        except ChildError as error:
            raise SensorError(str(error)) from None
        last_word = call.stdout[-256:].split()[-1:]
        try:
            watts = _positive(float(last_word[0])) if call.returncode == 0 else None
        except (IndexError, ValueError):
            watts = None
        if watts is None:
            raise SensorError(f"{self.name} ended with {call.returncode} and printed no power in W")
        return (Value("power_usage_w", watts),)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
