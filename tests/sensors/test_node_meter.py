"""The node's meter: a BMC over Redfish, a log, a command; bounds, words, and a kept password."""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.sensors import node
from llenergymeasure.sensors.base import SensorError, SensorInfo, Value
from llenergymeasure.sensors.node import NodeSensor
from llenergymeasure.sensors.watt_log import parse_log
from support.redfish import PASSWORD, USER, bmc, chassis, collection, environment, power

KEYS = {"LLEM_NODE_USER": USER, "LLEM_NODE_PASSWORD": PASSWORD}


def opened(meter: str, **variables: str) -> tuple[NodeSensor, SensorInfo]:
    sensor = NodeSensor({"LLEM_NODE_METER": meter, **KEYS, **variables})
    (info,) = sensor.describe()
    return sensor, info


def read(sensor: NodeSensor) -> list[Value]:
    (channel,) = sensor.channels()
    return list(channel.read())


def test_an_older_bmc_tells_the_power_of_its_first_control() -> None:
    resources = {
        "": lambda: collection("Enclosure", "1"),
        "Enclosure": lambda: chassis("Enclosure"),
        "1": lambda: chassis("1", "Power"),
        "1/Power": lambda: power(742, 310),
    }
    with bmc(resources) as address:
        sensor, info = opened(f"redfish:{address}")
        assert (info.scope, info.kind, info.unavailable) == ("node", "measured", None)
        assert [(value.quantity, value.value) for value in read(sensor)] == [("power_usage_w", 742)]


def test_a_newer_bmc_tells_energy_too_and_where_its_steps_lie() -> None:
    kwh = iter([12.5, 12.5, 12.5, 12.501, 12.501])
    resources = {
        "1": lambda: chassis("1", "EnvironmentMetrics", "Power"),
        "1/EnvironmentMetrics": lambda: environment(801.5, next(kwh, 12.501)),
    }
    with bmc(resources) as address:
        sensor, info = opened(f"redfish:{address}/redfish/v1/Chassis/1")
        assert info.quantities == ("power_usage_w", "energy_counter_j")
        values = [value for _ in range(2) for value in read(sensor)]
        steps = [value for value in values if value.quantity == "energy_counter_j"]
        assert [value.value for value in steps] == [pytest.approx(12.501 * 3.6e6)]
        assert steps[0].span_ns > 0


@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ({"1": lambda: chassis("1")}, "no chassis of this BMC reports a power"),
        (
            {"1": lambda: chassis("1", "Power"), "1/Power": lambda: power(None)},
            "no chassis of this BMC reports a power",
        ),
        (  # its processors' alone
            {"1": lambda: chassis("1", "Power"), "1/Power": lambda: power(0, 310)},
            "no chassis of this BMC reports a power",
        ),
        (  # a link that leads elsewhere is not followed
            {"1": lambda: {**chassis("1"), "Power": {"@odata.id": "//example.org/redfish/v1/P"}}},
            "no chassis of this BMC reports a power",
        ),
        ({"1": lambda: b" " * (node.REPLY_BYTES + 2)}, "more than 1048576 bytes"),
        ({"1": lambda: b"<html>"}, "no JSON"),
        ({"1": lambda: b"[]"}, "no resource"),
        ({"1": lambda: b"[" * 100_000}, "no JSON"),
        ({}, "answered 404"),
    ],
)
def test_a_bmc_that_gives_no_power_says_why(resources: Any, word: str) -> None:
    with bmc(resources) as address:
        _, info = opened(f"redfish:{address}/redfish/v1/Chassis/1")
    assert word in str(info.unavailable)


def test_of_several_chassis_one_must_be_named() -> None:
    resources = {"": lambda: collection("A", "B")}
    for name in ("A", "B"):
        resources[name] = lambda name=name: chassis(name, "Power")  # type: ignore[misc]
        resources[f"{name}/Power"] = lambda: power(300)
    with bmc(resources) as address:
        _, info = opened(f"redfish:{address}")
    assert "several chassis report a power" in str(info.unavailable)


def test_a_bmc_that_dribbles_does_not_hold_the_meter_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "ANSWER_S", 0.3)

    def slow() -> bytes:
        time.sleep(2)
        return b"{}"

    with bmc({"1": slow}) as address:
        _, info = opened(f"redfish:{address}/redfish/v1/Chassis/1")
    assert "no answer" in str(info.unavailable)


@pytest.mark.parametrize(
    "meter",
    [
        f"redfish:https://root:{PASSWORD}@bmc",
        "redfish:http://bmc.example.org",
        "redfish:file:///etc/passwd",
        "ipmi:bmc",
        "csv:",
        "redfish:https://[::1",
        f"command:watts '{PASSWORD}",
        PASSWORD,
    ],
)
def test_what_names_no_meter_is_refused_and_not_repeated(meter: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        opened(meter)
    assert "LLEM_NODE_METER" in str(raised.value)
    assert PASSWORD not in str(raised.value)


def test_without_its_password_a_bmc_says_so_and_nothing_shows_it() -> None:
    with bmc({"1": lambda: chassis("1", "Power"), "1/Power": lambda: power(5)}) as address:
        meter = f"redfish:{address}/redfish/v1/Chassis/1"
        _, refused = opened(meter, LLEM_NODE_PASSWORD="another")
        sensor, found = opened(meter)
        assert "answered 401" in str(refused.unavailable)
        assert found.unavailable is None
        for shown in (repr(found), repr(refused), repr(sensor), repr(sensor.channels())):
            assert PASSWORD not in shown


def line(ago_s: float, watts: float) -> str:
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    return f"{at.isoformat()},{watts}\n"


def test_a_logs_lines_are_at_their_own_times_and_only_whole_ones_count(tmp_path: Path) -> None:
    path = tmp_path / "wall.csv"
    path.write_text("Timestamp,Volt,Power (W)\n" + line(3, 1).replace(",1", ",230,401.5"))
    sensor, info = opened(f"csv:{path}")
    assert info.unavailable is None
    assert "wall.csv" in info.name
    half = line(1, 2).replace(",2", ",230,403.5")
    with path.open("a") as file:
        file.write(line(2, 3).replace(",3", ",230,402.5") + half[:20])
    (value,) = read(sensor)
    assert value.value == 402.5
    assert (time.monotonic_ns() - value.at_ns) / 1e9 == pytest.approx(2, abs=1.5)
    with path.open("a") as file:
        file.write(half[20:])
    assert [value.value for value in read(sensor)] == [403.5]
    assert read(sensor) == []


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (3600, "s behind this machine's clock: the meter's clock is wrong"),
        (-7200, "s ahead of this machine's clock"),
        ("a,b\n1,2\n", "names no column of times and watts"),
        ("time,Power (kW)\n1,0.4\n", "names no column of times and watts"),
        ("time,power_mw\n1,400000\n", "names no column of times and watts"),
        ("time,milliwatts\n1,400000\n", "names no column of times and watts"),
        ("time,power_w_limit\n1,400\n", "names no column of times and watts"),
        ("time,power_limit_w\n1,400\n", "names no column of times and watts"),
        ("time,power_kva\n1,400\n", "names no column of times and watts"),
        ("time,power_var\n1,400\n", "names no column of times and watts"),
        ("time,power_watt_hours\n1,400\n", "names no column of times and watts"),
        ("time,power (Wh)\n1,400\n", "names no column of times and watts"),
        ("time,power_watts_h\n1,400\n", "names no column of times and watts"),
        ("hello\n", "names no column"),
        ("", "no line of a time (ISO 8601, or seconds since 1970) and a power in W"),
        ("time_ms,power_w\n1764417600000,400\n", "no line of a time"),
        ("Date,Time,Power (W)\n2025-11-29,12:00:01,400\n", "no line of a time"),
        (
            "time,psu1_power_w,psu2_power_w\n1,200,210\n",
            "several powers (psu1_power_w, psu2_power_w)",
        ),
    ],
)
def test_a_log_that_cannot_be_used_says_why(tmp_path: Path, content: str | int, word: str) -> None:
    path = tmp_path / "wall.csv"
    path.write_text(content if isinstance(content, str) else line(content, 400))
    assert word in str(opened(f"csv:{path}")[1].unavailable)


@pytest.mark.parametrize(("by_s", "word"), [(3600, "behind"), (-3600, "ahead of")])
def test_a_log_whose_clock_goes_to_summer_time_or_back_is_no_reading_meanwhile(
    tmp_path: Path, by_s: float, word: str
) -> None:
    path = tmp_path / "wall.csv"
    path.write_text(line(1, 400))
    sensor, _ = opened(f"csv:{path}")
    with path.open("a") as file:
        file.write(line(by_s, 410))
    with pytest.raises(SensorError, match=f"{word} this machine's clock: the meter's clock is"):
        read(sensor)
    with path.open("a") as file:
        file.write(line(0, 420))
    assert [value.value for value in read(sensor)] == [420]


def test_a_log_that_is_not_there_or_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "wall.csv"
    assert "No such file" in str(opened(f"csv:{path}")[1].unavailable)
    path.write_text(line(1, 400) * 5)
    sensor, _ = opened(f"csv:{path}")
    path.write_text(line(0, 7))
    assert [value.value for value in read(sensor)] == [7]


@pytest.mark.parametrize(
    "heading",
    [
        "time,power_factor,power_w",
        "Time,ApparentPower,Power",
        "epoch,Power limit,W",
        "t,Watt-hours,P",
        "time,Watts Max,Watts",
        "time,peak_power,power_w",
        "Time,Power Cycle,Watts",
        "time,power_state,power_w",
        "time,power_on_hours,power_w",
        # A word that holds another unit's name is none of it.
        "time,power_nova",
        "time,power_24_hours_w",
        "time,power consumption (W) - last hour",
        "time,power limiter off (W)",
        "time,factory power (W)",
        "time,power over a minute (W)",
    ],
)
def test_of_several_powers_the_one_drawn_in_watts_counts(heading: str) -> None:
    line = "1.5,0.98,402" if heading.count(",") == 2 else "1.5,402"
    assert parse_log([heading, line]) == [(1.5, 402)]


def test_lines_without_a_heading_in_seconds_since_1970() -> None:
    lines = ["# meter", "2.5,10", "1.5,9,x", "nan,1", "3,-1", "4", "0001-01-01,1"]
    assert parse_log(lines) == [(1.5, 9), (2.5, 10)]


@pytest.mark.parametrize(
    ("program", "word"),
    [
        ("print('power'); print(512.25)", None),
        ("print('no')", "printed no power in W"),
        ("print(0)", "printed no power in W"),
        ("raise SystemExit(3)", "ended with 3"),
        ("import time; time.sleep(60)", "did not answer within 0.5 s"),
        # What it has started holds its output open.
        (
            "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)",
            "did not answer within 0.5 s",
        ),
    ],
)
def test_a_command_prints_the_power(
    tmp_path: Path, program: str, word: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if word and "answer" in word:
        monkeypatch.setattr(node, "ANSWER_S", 0.5)
    script = tmp_path / "watts.py"
    script.write_text(program)
    began_s = time.monotonic()
    sensor, info = opened(f"command:{sys.executable} {script}")
    assert time.monotonic() - began_s < 30
    if word is not None:
        assert word in str(info.unavailable)
        return
    assert [(value.quantity, value.value) for value in read(sensor)] == [("power_usage_w", 512.25)]


def test_a_bmc_that_is_gone_is_a_sensors_error() -> None:
    with bmc({"1": lambda: chassis("1", "Power"), "1/Power": lambda: power(5)}) as address:
        sensor, _ = opened(f"redfish:{address}/redfish/v1/Chassis/1")
    with pytest.raises(SensorError, match="cannot be reached"):
        read(sensor)


def test_no_meter_is_named() -> None:
    (info,) = NodeSensor({}).describe()
    assert "no meter of the whole node is named" in str(info.unavailable)
    assert "LLEM_NODE_METER" in str(info.remedy)
    assert json.dumps(info.quantities) == "[]"
