"""Sensors: what each says it can see, what it reads, and how it says that it cannot."""

import itertools
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.machine import host
from llenergymeasure.sensors import rapl
from llenergymeasure.sensors.base import Channel, SensorError
from llenergymeasure.sensors.codecarbon import CodecarbonSensor
from llenergymeasure.sensors.rapl import RaplSensor
from llenergymeasure.sensors.registry import open_sensors
from nvml_sim import sim
from sensors.clock import Clock
from support.forks import run_forked
from support.programs import program
from support.recording import card_environment, uuid

RANGE_UJ = 262_143_328_850
REGISTRY = ("llenergymeasure.sensors.registry",)


def _domain(folder: Path, name: str, energy_uj: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, one with cores and DRAM, and the platform; one package twice, as kernels do."""
    root = tmp_path / "powercap"
    package = _domain(root / "intel-rapl:0", "package-0", 5_000_000)
    _domain(package / "intel-rapl:0:0", "core", 1_000_000)
    _domain(package / "intel-rapl:0:1", "dram", 2_000_000)
    _domain(root / "intel-rapl:1", "package-1", 7_000_000)
    _domain(root / "intel-rapl:2", "psys", 9_000_000)
    _domain(root / "intel-rapl-mmio:0", "package-0", 5_000_000)
    return root


def test_rapl_gives_packages_dram_and_platform_once_and_no_parts(powercap: Path) -> None:
    sensor = RaplSensor(powercap, max_still_s=0)

    scopes = {info.device: info.scope for info in sensor.describe()}

    assert scopes == {
        "cpu:package-0": "cpu",
        "dram:package-0": "dram",
        "cpu:package-1": "cpu",
        "host": "host",
    }
    assert {info.kind for info in sensor.describe()} == {"measured"}
    values = {channel.device: channel.read()[0].value for channel in sensor.channels()}
    assert values["cpu:package-0"] == pytest.approx(5.0)
    assert values["dram:package-0"] == pytest.approx(2.0)


def _dies(root: Path, *values_uj: int) -> None:
    for number, value_uj in enumerate(values_uj):
        name = f"package-0-die-{number}"
        die = _domain(root / f"intel-rapl:{number}", name, value_uj)
        _domain(die / f"intel-rapl:{number}:0", "dram", 3 * value_uj)


def test_dies_that_repeat_their_package_s_counter_are_one(tmp_path: Path) -> None:
    _dies(tmp_path, 5_000_000_000, 5_000_900_000, RANGE_UJ - 7)

    infos = {info.device: info.note for info in RaplSensor(tmp_path, max_still_s=0).describe()}

    assert infos == {
        "cpu:package-0-die-0": "cpu:package-0-die-1 repeats its counter, and is left out",
        "dram:package-0-die-0": None,
        "dram:package-0-die-1": None,
        "cpu:package-0-die-2": None,
        "dram:package-0-die-2": None,
    }


def test_dies_that_repeat_it_across_its_turn_are_one_and_packages_alike_are_two(
    tmp_path: Path,
) -> None:
    _dies(tmp_path, RANGE_UJ - 100_000, 100_000)
    _domain(tmp_path / "intel-rapl:2", "package-1", 100_000)
    _domain(tmp_path / "intel-rapl:3", "package-10-die-0", 100_000)
    _domain(tmp_path / "intel-rapl:4", "package-11-die-0", 100_000)

    sensor = RaplSensor(tmp_path, max_still_s=0)

    cpus = [each.device for each in sensor.channels() if each.device.startswith("cpu:")]
    assert cpus == [
        "cpu:package-0-die-0",
        "cpu:package-1",
        "cpu:package-10-die-0",
        "cpu:package-11-die-0",
    ]


def _channel(powercap: Path, device: str) -> Channel:
    sensor = RaplSensor(powercap, max_still_s=0)
    (channel,) = (each for each in sensor.channels() if each.device == device)
    return channel


def _read_at(powercap: Path, *values_uj: int) -> list[float]:
    """What a package's counter gives where the kernel's shows these one after the other."""
    counter, channel = powercap / "intel-rapl:1" / "energy_uj", _channel(powercap, "cpu:package-1")
    values = []
    for value_uj in values_uj:
        counter.write_text(str(value_uj))
        value = channel.read()[0].value
        assert value is not None
        values.append(value)
    return values


@pytest.mark.parametrize(
    ("shown_uj", "rises_j"),
    [
        ([RANGE_UJ - 100_000, 200_000, 1_200_000], [0.3, 1.0]),
        ([9_000_000, 1_000, 1_001_000], [-8.999, 1.0]),
        ([RANGE_UJ - 1, 0, RANGE_UJ - 1, 0, 5_000_000, 2_000_000], [0, RANGE_UJ / 1e6, 0, 5, -3]),
    ],
    ids=["starts over", "is reset", "starts over twice and is reset"],
)
def test_rapl_counts_on_where_the_counter_starts_over(
    powercap: Path, shown_uj: list[int], rises_j: list[float]
) -> None:
    """And falls by what was lost where it is reset."""
    assert np.diff(_read_at(powercap, *shown_uj)) == pytest.approx(rises_j, abs=1e-5)


@pytest.mark.parametrize(("pause_s", "falls"), [(60, False), (300, True)])
def test_rapl_that_was_not_read_for_as_long_as_a_turn_may_take_falls(
    powercap: Path, monkeypatch: pytest.MonkeyPatch, pause_s: int, falls: bool
) -> None:
    """A package of 1 kW comes round in 262 s: what is read then does not show how often."""
    moments_ns = itertools.count(10**12, pause_s * 10**9)
    monkeypatch.setattr(rapl, "time", SimpleNamespace(monotonic_ns=lambda: next(moments_ns)))
    before, after, later = _read_at(powercap, 9_000_000, 10_000_000, 11_000_000)
    assert (after < before, later < after) == (falls, falls)


@pytest.mark.parametrize(("power_w", "pause_s", "falls"), [(60, 35, False), (60, 120, True)])
def test_how_long_a_turn_may_take_follows_from_the_power_that_was_seen(
    powercap: Path, monkeypatch: pytest.MonkeyPatch, power_w: int, pause_s: int, falls: bool
) -> None:
    """AMD's counters come round after 65.5 kJ, and 33 s at the 2 kW that no package draws."""
    for limit in powercap.glob("**/max_energy_range_uj"):
        limit.write_text("65532610987")
    moments_s = [0.0] * 4 + [600.0, 600.05, 600.1, 600.15, 600.15 + pause_s]
    moments_ns = iter([10**12 + round(each * 1e9) for each in moments_s])
    monkeypatch.setattr(rapl, "time", SimpleNamespace(monotonic_ns=lambda: next(moments_ns)))
    values_uj = [round(power_w * each * 1e6) for each in (1.0, 1.05, 1.1, 1.15, 1.15 + pause_s)]
    *_, before, after = _read_at(powercap, *values_uj)
    lost_j = 65532.610987 if falls else 0.0
    assert after - before == pytest.approx(power_w * pause_s - lost_j)


def test_rapl_that_may_not_be_read_is_unavailable_with_the_remedy() -> None:
    with _as_nobody(), tempfile.TemporaryDirectory() as name:
        root = Path(name)
        package = _domain(root / "intel-rapl:0", "package-0", 5_000_000)
        (package / "energy_uj").chmod(0o000)
        (info,) = RaplSensor(root, max_still_s=0).describe()

    assert info.unavailable is not None
    assert "permission denied" in info.unavailable
    assert info.remedy is not None
    assert "chmod" in info.remedy


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Give up root's right to read everything, where the tests run as root."""
    nobody = 65534
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("file", ["max_energy_range_uj", "energy_uj"])
def test_rapl_of_unknown_range_is_unavailable_with_its_place(powercap: Path, file: str) -> None:
    """Or one that cannot be read; the others go on."""
    (powercap / "intel-rapl:1" / file).unlink()
    (powercap / "intel-rapl:1" / file).mkdir()
    sensor = RaplSensor(powercap, max_still_s=0)

    reasons = {info.device: info.unavailable for info in sensor.describe()}

    assert str(powercap / "intel-rapl:1") in str(reasons["cpu:package-1"])
    assert reasons["cpu:package-0"] is None
    assert "cpu:package-1" not in {channel.device for channel in sensor.channels()}


def test_rapl_that_vanishes_says_so(powercap: Path) -> None:
    channel = _channel(powercap, "cpu:package-1")
    (powercap / "intel-rapl:1" / "energy_uj").unlink()

    with pytest.raises(SensorError, match="energy_uj"):
        channel.read()


@pytest.mark.parametrize("energy_uj", [0, 60_293_987_000_000])
def test_rapl_that_nothing_renews_is_unavailable_before_a_run(
    tmp_path: Path, energy_uj: int
) -> None:
    _domain(tmp_path / "intel-rapl:0", "package-0", energy_uj)
    sensor = RaplSensor(tmp_path)

    (info,) = sensor.describe()

    assert f"stands still at {energy_uj}" in str(info.unavailable)
    assert not sensor.channels()


def test_rapl_that_stops_counting_in_a_run_gives_nothing_more(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = _channel(powercap, "host")
    began_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: began_ns + 900_000_000)
    assert channel.read()[0].value == pytest.approx(9.0)
    monkeypatch.setattr(time, "monotonic_ns", lambda: began_ns + 1_500_000_000)
    with pytest.raises(SensorError, match="stands still at 9000000"):
        channel.read()
    (powercap / "intel-rapl:2" / "energy_uj").write_text("9500000")
    assert channel.read()[0].value == pytest.approx(9.5)


class _Renewals(Clock):
    """A clock, and a counter that is renewed as time goes on."""

    def __init__(self, counter: Path, period_s: float, power_w: float, unit_j: float) -> None:
        super().__init__(1000.0)
        self._counter, self._period_s = counter, period_s
        self._power_w, self._unit_j = power_w, unit_j
        self.sleep(0.0)

    def sleep(self, seconds: float) -> None:
        self.now_s += 1.07 * seconds
        counted_j = (self.now_s + 1e-9) // self._period_s * self._period_s * self._power_w
        shown_j = counted_j // self._unit_j * self._unit_j
        self._counter.write_text(f"{round(1e6 * shown_j)}\n")


def _renewed(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    period_s: float,
    power_w: float = 100.0,
    unit_j: float = 6.1e-5,
    at_s: float = 1000.0,
) -> RaplSensor:
    """Return RAPL as it is opened at a moment, on a package whose counter is so renewed."""
    clock = _Renewals(
        _domain(root / "intel-rapl:0", "package-0", 1) / "energy_uj", period_s, power_w, unit_j
    )
    clock.sleep((at_s - clock.now_s) / 1.07)
    monkeypatch.setattr(rapl, "time", clock)
    return RaplSensor(root)


def test_rapl_that_counts_is_taken_within_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = _renewed(tmp_path, monkeypatch, 0.001)

    (channel,) = sensor.channels()
    assert channel.read()[0].span_ns == 1_000_000
    assert sensor.describe()[0].update_period_s == pytest.approx(0.001)
    assert rapl.time.monotonic() - 1000.0 < 0.01


@pytest.mark.parametrize(
    ("period_s", "power_w", "unit_j", "shown_s"),
    [(0.01, 100, 6.1e-5, 0.01), (0.001, 150, 1.0, 1 / 150)],
    ids=["each 10 ms", "whole joules"],
)
def test_how_old_a_value_may_be_follows_from_when_the_counter_is_renewed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    period_s: float,
    power_w: float,
    unit_j: float,
    shown_s: float,
) -> None:
    """Sapphire Rapids' platform counts whole joules (Linux' ``psys_domain_energy_unit``)."""
    sensor = _renewed(tmp_path, monkeypatch, period_s, power_w, unit_j)

    (channel,) = sensor.channels()
    span_ns = channel.read()[0].span_ns
    assert span_ns is not None
    assert shown_s <= 1e-9 * span_ns < shown_s + 0.004
    assert sensor.describe()[0].update_period_s == pytest.approx(1e-9 * span_ns)


@pytest.mark.parametrize("at_s", [1000.0, 1000.3, 1000.97])
def test_rapl_of_a_virtual_machine_that_is_renewed_each_second_is_unavailable_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_s: float
) -> None:
    """QEMU shares out the package's energy each second: it was taken if one of these came soon."""
    (info,) = _renewed(tmp_path, monkeypatch, 1.0, at_s=at_s).describe()

    assert "stands still" in str(info.unavailable)


def test_the_platform_may_be_another_package_s_and_is_one(powercap: Path) -> None:
    """Linux calls it ``psys-1`` where the second package is the master (Sapphire Rapids)."""
    (powercap / "intel-rapl:2" / "name").write_text("psys-1\n")
    _domain(powercap / "intel-rapl:3", "psys-2", 3_000_000)

    hosts = [i.name for i in RaplSensor(powercap, max_still_s=0).describe() if i.scope == "host"]

    assert hosts == ["host (psys-1)"]


def test_a_platform_that_counts_is_taken_before_one_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _domain(tmp_path / "intel-rapl:0", "psys", 9_000_000)
    clock = _Renewals(
        _domain(tmp_path / "intel-rapl:1", "psys-1", 1) / "energy_uj", 0.001, 100.0, 6.1e-5
    )
    monkeypatch.setattr(rapl, "time", clock)

    (info,) = RaplSensor(tmp_path).describe()

    assert (info.name, info.unavailable) == ("host (psys-1)", None)


def test_without_powercap_rapl_is_unavailable(tmp_path: Path) -> None:
    sensor = RaplSensor(tmp_path / "nothing")
    (info,) = sensor.describe()
    assert info.unavailable
    assert info.remedy
    assert not sensor.channels()


def test_codecarbon_is_an_estimate_of_two_devices_that_do_not_overlap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("codecarbon")
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **_: asked.append(names))
    sensor = CodecarbonSensor()

    infos = {info.device: info for info in sensor.describe()}
    time.sleep(0.1)
    values = {channel.device: channel.read()[0] for channel in sensor.channels()}

    assert asked == []  # of the network, which a compute node need not have
    assert {info.kind for info in infos.values()} == {"estimated"}
    assert {device: info.scope for device, info in infos.items()} == {"cpu": "cpu", "dram": "dram"}
    assert all(info.note is not None and "model:" in info.note for info in infos.values())
    for value in values.values():
        assert value.quantity == "power_model_w"
        assert value.value is not None
        assert value.value > 0
        assert value.span_ns is not None
        assert value.span_ns > 50_000_000


def test_codecarbon_models_the_whole_host_also_in_a_job_and_leaves_the_jobs_number(
    tmp_path: Path,
) -> None:
    pytest.importorskip("codecarbon")
    program(tmp_path / "scontrol", "echo NumCPUs=1 TRES=cpu=1,mem=100M,node=1")
    ask = (
        "import os\n"
        "from llenergymeasure.sensors.codecarbon import CodecarbonSensor\n"
        "notes = [info.note for info in CodecarbonSensor().describe()]\n"
        "numbers = [os.environ.get(name) for name in ('SLURM_JOB_ID', 'SLURM_JOBID')]\n"
        "print(*numbers, *notes, sep='|')\n"
    )
    job = {"SLURM_JOB_ID": "7", "SLURM_JOBID": "7"}
    outside = {name: value for name, value in os.environ.items() if name not in job}
    outside["PATH"] = f"{tmp_path}:{outside['PATH']}"
    outputs = [
        run_forked(ask, variables, modules=REGISTRY).stdout.split("|", 2)
        for variables in (outside, outside | job, outside | {"SLURM_JOBID": "7"})
    ]
    assert [each[:2] for each in outputs] == [["None"] * 2, ["7"] * 2, ["None", "7"]]
    assert outputs[0][2] == outputs[1][2] == outputs[2][2]


def test_codecarbon_s_model_holds_both_sockets_whatever_language_lscpu_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("codecarbon")
    program(tmp_path / "lscpu", "echo 'Sockel:  2'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines = ["model name\t: Intel(R) Xeon(R) Gold 6226R CPU @ 2.90GHz"]
    lines += [f"physical id\t: {socket}" for socket in (0, 0, 1, 1)]
    plain = host._lines
    monkeypatch.setattr(
        host, "_lines", lambda path: lines if path.name == "cpuinfo" else plain(path)
    )

    notes = [info.note for info in CodecarbonSensor().describe()]

    assert any("2 x 150 W from codecarbon's table" in str(note) for note in notes), notes


@pytest.mark.parametrize("asked", ["nvlm", "auto,tea", ""])
def test_an_unknown_sensor_is_an_error_that_lists_the_known(asked: str) -> None:
    with pytest.raises(ConfigurationError, match="codecarbon"):
        open_sensors(asked)


def _describe(
    asked: str, variables: dict[str, str], code: str = "answer = infos", before: str = ""
) -> Any:
    source = (
        f"{before}\nimport json\nfrom dataclasses import asdict\n"
        "from llenergymeasure.sensors.registry import open_sensors\n"
        f"opened = open_sensors({asked!r})\n"
        "infos = [asdict(info) for info in opened.infos]\n"
        f"{code}\nprint(json.dumps(answer))"
    )
    process = run_forked(source, variables, modules=REGISTRY)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_zeus_reads_the_same_card_beside_nvml(tmp_path: Path) -> None:
    pytest.importorskip("zeus")
    cards = [sim.Device(uuid=uuid(1)), sim.Device(uuid=uuid(2), power_w=[(0.0, 400.0)])]
    variables = card_environment(tmp_path, cards, CUDA_VISIBLE_DEVICES=uuid(2))

    infos = _describe("nvml,zeus", variables)

    views = {(info["sensor"], info["device"], info["scope"], info["kind"]) for info in infos}
    assert views == {
        ("nvml", uuid(2), "gpu", "measured"),
        ("zeus", uuid(2), "gpu", "measured"),
    }
    source = (
        "by = {c.sensor: c for c in opened.channels() if c.quantities[0] == 'energy_counter_j'}\n"
        "import time\n"
        "time.sleep(0.3)\n"
        "answer = [by[name].read()[0].value for name in ('nvml', 'zeus')]"
    )
    nvml, zeus = _describe("nvml,zeus", variables, source)
    assert nvml > 0
    assert zeus == pytest.approx(nvml, abs=50.0)


def test_a_card_that_zeus_cannot_read_takes_no_other_sensor_along(tmp_path: Path) -> None:
    pytest.importorskip("zeus")
    old = sim.Device(
        name="NVIDIA GeForce GTX 1080 Ti",
        uuid=uuid(1),
        keys={
            "compute_capability": [6, 1],
            "counter_supported": False,
            "not_supported": [185, 186],
        },
    )
    infos = _describe("nvml,zeus", card_environment(tmp_path, [old]))

    by_sensor = {info["sensor"]: info for info in infos}
    assert by_sensor["nvml"]["unavailable"] is None
    assert "Not Supported" in by_sensor["zeus"]["unavailable"]


_C2C = """
import pynvml
from zeus.device.gpu import nvidia
"""
LATER_ZEUS = """
def begin(self, index, _begin=nvidia.NVIDIAGPU.__init__):
    _begin(self, index)
    self._is_c2c_superchip = self.__dict__.pop("_is_grace_hopper")
nvidia.NVIDIAGPU.__init__ = begin
"""
NO_MODULE = """
def fields(handle, asked, _fields=pynvml.nvmlDeviceGetFieldValues):
    answers = _fields(handle, asked)
    for (number, scope), answer in zip(asked, answers):
        if scope == pynvml.NVML_POWER_SCOPE_MODULE:
            answer.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
    return answers
pynvml.nvmlDeviceGetFieldValues = fields
"""


@pytest.mark.parametrize(
    ("chip", "device"),
    [(LATER_ZEUS, f"module:{uuid(1)}"), (NO_MODULE, uuid(1))],
    ids=["a GH200 and a later Zeus", "a GB10, whose counter is the GPU's"],
)
def test_whose_counter_zeus_reads_is_known_without_it(
    tmp_path: Path, chip: str, device: str
) -> None:
    pytest.importorskip("zeus")
    card = sim.Device(uuid=uuid(1), keys={"c2c": {"enabled": True}})

    infos = _describe("nvml,zeus", card_environment(tmp_path, [card]), before=_C2C + chip)

    counts = [(i["sensor"], i["device"]) for i in infos if "energy_counter_j" in i["quantities"]]
    assert counts == [("nvml", device), ("zeus", device)]


def test_zeus_that_sees_nothing_is_unavailable_not_zero() -> None:
    pytest.importorskip("zeus")
    infos = _describe("zeus", {"PATH": os.environ.get("PATH", "")})

    if any(info["unavailable"] is None for info in infos):
        pytest.skip("zeus sees something here")
    assert infos[0]["unavailable"]
    assert infos[0]["remedy"]


ONE_POWER = ["nvmlDeviceGetPowerUsage"]
REPORTED = {
    "DGX Spark: neither memory nor limits": (
        {
            "name": "NVIDIA GB10",
            "compute_capability": [12, 1],
            "not_supported": [
                "nvmlDeviceGetMemoryInfo",
                "nvmlDeviceGetEnforcedPowerLimit",
                "nvmlDeviceGetPowerManagementDefaultLimit",
                "nvmlDeviceGetPowerManagementLimitConstraints",
            ],
        },
        {"energy_counter_j", "power_instant_w", "power_average_w"},
    ),
    "WSL2: no processes, no counter, no utilisation": (
        {
            "counter_supported": False,
            "not_supported": [
                "nvmlDeviceGetComputeRunningProcesses",
                "nvmlDeviceGetGraphicsRunningProcesses",
                "nvmlDeviceGetUtilizationRates",
            ],
        },
        {"power_instant_w", "power_average_w"},
    ),
    "before Volta: neither a counter nor fields of power": (
        {"compute_capability": [6, 1], "counter_supported": False, "not_supported": [185, 186]},
        {"power_usage_w"},
    ),
    "a vGPU: no power at all": (
        {"counter_supported": False, "not_supported": [185, 186, *ONE_POWER]},
        None,
    ),
}


@pytest.mark.parametrize("card", REPORTED)
def test_cards_as_their_owners_report_them(tmp_path: Path, card: str) -> None:
    keys, quantities = REPORTED[card]
    name = str(keys.get("name", "Simulated"))
    rest = {key: value for key, value in keys.items() if key != "name"}
    infos = _describe("nvml", card_environment(tmp_path, [sim.Device(name=name, keys=rest)]))

    (info,) = infos
    if quantities is None:
        assert "neither an energy counter nor power" in info["unavailable"]
        assert info["remedy"]
    else:
        assert info["unavailable"] is None
        assert set(info["quantities"]) == quantities
        assert ("no energy counter" in str(info["note"])) == ("energy_counter_j" not in quantities)


def test_a_superchips_counter_is_that_of_the_module(tmp_path: Path) -> None:
    card = sim.Device(uuid=uuid(1), keys={"c2c": {"enabled": True}})
    infos = _describe("nvml", card_environment(tmp_path, [card]))

    values = {info["device"]: (info["scope"], info["quantities"]) for info in infos}
    assert "energy_counter_j" not in values[uuid(1)][1]
    scope, quantities = values[f"module:{uuid(1)}"]
    assert scope == "module"
    assert "energy_counter_j" in quantities


def test_a_card_in_slices_says_that_its_readings_are_the_whole_cards(tmp_path: Path) -> None:
    infos = _describe("nvml", card_environment(tmp_path, [sim.Device(keys={"mig": True})]))

    (info,) = infos
    assert info["mig"] is True
    assert "whole card" in info["note"]
