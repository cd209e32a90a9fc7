"""A BMC as Redfish's public schemas describe it (DMTF DSP2046)."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from support import web

USER, PASSWORD = "meter", "s3cret-of-the-bmc"


def chassis(name: str, *links: str) -> dict[str, Any]:
    path = f"/redfish/v1/Chassis/{name}"
    return {
        "@odata.id": path,
        "@odata.type": "#Chassis.v1_25_0.Chassis",
        "Id": name,
        "Name": "Computer System Chassis",
        "ChassisType": "RackMount",
        **{link: {"@odata.id": f"{path}/{link}"} for link in links},
    }


def power(watts: float | None, *others: float) -> dict[str, Any]:
    return {
        "@odata.type": "#Power.v1_7_1.Power",
        "Id": "Power",
        "Name": "Power",
        "PowerControl": [
            {"MemberId": str(index), "Name": "System Power Control", "PowerConsumedWatts": value}
            for index, value in enumerate((watts, *others))
        ],
    }


def environment(watts: float, kwh: float | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "@odata.type": "#EnvironmentMetrics.v1_3_1.EnvironmentMetrics",
        "Id": "EnvironmentMetrics",
        "Name": "Chassis Environment Metrics",
        "PowerWatts": {
            "DataSourceUri": "/redfish/v1/Chassis/1/Sensors/TotalPower",
            "Reading": watts,
        },
    }
    return body if kwh is None else {**body, "EnergykWh": {"Reading": kwh}}


Resources = dict[str, Callable[[], Any]]


def collection(*names: str) -> dict[str, Any]:
    members = [{"@odata.id": f"/redfish/v1/Chassis/{name}"} for name in names]
    return {
        "@odata.id": "/redfish/v1/Chassis",
        "Members": members,
        "Members@odata.count": len(names),
    }


@contextmanager
def bmc(resources: Resources) -> Iterator[str]:
    """Serve resources, by path below ``/redfish/v1/Chassis``, to whoever has the password."""
    word = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            make = resources.get(self.path.removeprefix("/redfish/v1/Chassis").strip("/"))
            allowed = self.headers.get("Authorization") == f"Basic {word}"
            status = 401 if not allowed else 404 if make is None else 200
            answer = make() if make is not None and allowed else {}
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content)

    with web.serving(Handler) as port:
        yield f"http://127.0.0.1:{port}"
