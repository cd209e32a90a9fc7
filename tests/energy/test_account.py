"""The whole account: which readings, what adds up, and never a silent zero."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from energy.metering import H100, counter_rows, window_ns
from llenergymeasure.energy.account import UNNAMED, account
from llenergymeasure.energy.sums import EnergySum, NotAdditiveError, total
from llenergymeasure.recording.samples import SampleRow, Samples
from llenergymeasure.results.energy import Reading
from llenergymeasure.run.result.build_result import energy_devices
from llenergymeasure.sensors.base import SensorInfo
from llenergymeasure.sensors.known_behaviour import Behaviour
from support import energy_card as card

LOAD = card.steps(60)
WINDOW = window_ns(20, 40)


def true_j(start_s: float = 20.0, end_s: float = 40.0) -> float:
    return float(LOAD.energy(start_s, end_s))


def rapl_rows(device: str, power_w: float, sensor: str = "rapl") -> list[SampleRow]:
    times_s = np.arange(0.0, 60.01, 0.05)
    return counter_rows(times_s, power_w * times_s, device, sensor)


def model_rows(device: str, power_w: float) -> list[SampleRow]:
    times_s = np.arange(0.25, 60.01, 0.25)
    return [
        SampleRow(card.ns(t), device, "codecarbon", "power_model_w", power_w, card.ns(t - 0.25))
        for t in times_s
    ]


GPU_ROWS = card.rows_of(LOAD, card.Sensor(window_s=0.025), 60)


def test_both_channels_are_given_and_the_counter_is_the_headline() -> None:
    result = account(card.recording(GPU_ROWS), WINDOW)
    channels = {reading.channel: reading for reading in result.readings}
    assert set(channels) == {"counter", "power"}
    assert [reading.headline for reading in result.readings] == [True, False]
    for reading in result.readings:
        assert reading.kind == "measured"
        assert reading.gross_j == pytest.approx(true_j(), rel=0.01)
        assert reading.u_sys_j == pytest.approx(0.08 * reading.gross_j)
        assert abs(reading.gross_j - true_j()) <= reading.gross_u95_j <= reading.bound_j
        assert reading.u95_j == reading.gross_u95_j
    assert result.total.gross_j == channels["counter"].gross_j
    assert result.validity == {}


def test_the_record_holds_energy_per_token_request_and_phase() -> None:
    phases = [("warmup", card.ns(10), card.ns(20)), ("late", card.ns(50), card.ns(80))]
    result = account(card.recording(GPU_ROWS), WINDOW, phases)
    energy = result.energy(output_tokens=1000, input_tokens=500, requests=10)
    assert energy.per_output_token_j == pytest.approx(energy.gross_j / 1000)
    assert energy.per_input_token_j == pytest.approx(energy.gross_j / 500)
    assert energy.per_request_j == pytest.approx(energy.gross_j / 10)
    assert energy.power_mean_w == pytest.approx(energy.gross_j / 20)
    warmup = energy.phases[0]
    assert abs(warmup.energy_j - true_j(10, 20)) <= warmup.u95_j < 0.01 * true_j(10, 20)
    assert energy.phases[1].energy_j is None
    assert (energy.kind, energy.source, energy.scopes) == ("measured", "nvml", ["gpu"])
    nothing = result.energy(output_tokens=0, input_tokens=None, requests=0)
    assert (nothing.per_output_token_j, nothing.per_request_j) == (None, None)


def test_phases_that_begin_and_end_where_the_load_changes_are_in_their_intervals() -> None:
    rng = np.random.default_rng(0)
    edges_s, levels_w, stretches_s = [-10.0], [60.0], [(0.0, 3.0)]
    for seed in range(40):
        start_s = stretches_s[-1][1] + 2 + rng.uniform(0, 0.1)
        stretches_s.append((start_s, start_s + rng.uniform(1, 4)))
        work = card.work(*stretches_s[-1], seed)
        edges_s += list(work.edges_s[1:])
        levels_w += list(work.levels_w[1:])
    phases = [("warmup", *window_ns(*stretch_s)) for stretch_s in stretches_s[1:]]
    power = card.Power(edges_s, levels_w)
    end_s = stretches_s[-1][1]
    samples = card.record(power, card.H100, end_s + 6, name=H100)
    energies = account(samples, window_ns(end_s + 2, end_s + 5), phases).phases
    off_j = [
        abs(energy.energy_j - power.energy(*stretch_s)) / energy.u95_j
        for energy, stretch_s in zip(energies, stretches_s[1:], strict=True)
    ]
    assert np.mean(np.array(off_j) <= 1) >= 0.95


def test_cards_beside_the_run_contribute_nothing() -> None:
    second = card.rows_of(card.constant(80.0), card.Sensor(), 60, "GPU-2")
    samples = card.recording(GPU_ROWS + second, card.info(), card.info("GPU-2"))
    result = account(samples, WINDOW, devices={card.UUID})
    assert {reading.device for reading in result.readings} == {card.UUID}
    both = account(samples, WINDOW)
    assert both.total.gross_j == pytest.approx(true_j() + 80 * 20, rel=0.01)
    assert len(both.headline) == 2


def zeus_card(device: str = "amd:0", **given: Any) -> SensorInfo:
    return card.info(device, "zeus", quantities=("energy_counter_j",), **given)


NONE_OF_NVIDIA = card.info("gpu", unavailable="no driver")
PACKAGE = card.info("cpu:package-0", "rapl", scope="cpu")


def beside_cpu(*infos: SensorInfo) -> Samples:
    """A recording of 50 W by the CPU and of 300 W by each card that Zeus reads."""
    rows = rapl_rows("cpu:package-0", 50.0)
    for info in infos:
        rows += rapl_rows(info.device, 300.0, "zeus") if info.unavailable is None else []
    return card.recording(rows, NONE_OF_NVIDIA, *infos, PACKAGE)


def test_a_card_that_zeus_alone_knows_is_counted_where_it_is_the_run_s() -> None:
    samples = beside_cpu(zeus_card())
    result = account(samples, WINDOW, devices={"amd:0"})
    assert [reading.device for reading in result.headline] == ["amd:0"]
    assert result.total.gross_j == pytest.approx(300.0 * 20, rel=1e-3)
    assert account(samples, WINDOW, devices=()).energy().source == "rapl"
    for device in ("GPU-of-torch", UNNAMED):
        unknown = account(samples, WINDOW, devices={device})
        assert unknown.total is None
        assert unknown.unavailable is not None
        assert device in unknown.unavailable
        assert "amd:0" in unknown.unavailable
        assert "energy.backend: rapl" in unknown.unavailable
        assert account(samples, WINDOW, devices={device}, headline="rapl").total.gross_j > 0
        assert account(samples, WINDOW, devices={device}, headline="zeus").total is None


def test_of_a_chip_the_gpu_is_not_counted_for_a_run_on_the_cpu() -> None:
    """Its name is that of a sensor that found no card at all."""
    samples = beside_cpu(zeus_card("gpu"), zeus_card("module", scope="module"))
    assert account(samples, WINDOW, devices=()).energy().source == "rapl"
    result = account(samples, WINDOW, devices={"module"})
    assert [reading.device for reading in result.headline] == ["module"]


def test_the_cpu_does_not_stand_for_a_card_that_gave_nothing() -> None:
    rows = rapl_rows("cpu:package-0", 50.0)
    for info in (card.info(), card.info(unavailable="not supported")):
        result = account(card.recording(rows, info, PACKAGE), WINDOW, devices={card.UUID})
        assert result.total is None
        assert "GPU-1" in str(result.unavailable)
        requested = account(
            card.recording(rows, info, PACKAGE), WINDOW, devices={card.UUID}, headline="rapl"
        )
        assert requested.total is not None


CPU_BUILD = {"versions": {"torch": "2.9.0+cpu"}}
IN_PROCESS = {"versions": {}, "devices": [], "environment": {"variables": {}}}
SERVED = IN_PROCESS | {"serving": {}}
TWO = ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("done", "config", "devices"),
    [
        (IN_PROCESS, {"backend": "pytorch"}, []),
        (IN_PROCESS, {"backend": "vllm"}, []),
        (IN_PROCESS, {"backend": "sglang", "sglang": {"engine": {"device": "cpu"}}}, []),
        (IN_PROCESS, {"backend": "sglang"}, [UNNAMED]),
        (SERVED, {"backend": "vllm"}, [UNNAMED]),
        (SERVED, {"backend": "pytorch"}, [UNNAMED]),
        (SERVED, {"backend": "openai"}, [UNNAMED]),
        (SERVED | CPU_BUILD, {"backend": "vllm"}, []),
        (SERVED | {"versions": {"vllm": "0.11.0+cpu"}}, {"backend": "vllm"}, []),
        (IN_PROCESS | {"devices": ["GPU-a"]}, {"backend": "pytorch"}, ["amd:0"]),
        (IN_PROCESS | {"devices": TWO}, {"backend": "pytorch"}, TWO),
        *(
            (
                IN_PROCESS | {"devices": ["GPU-a"], "environment": {"variables": {name: "1"}}},
                {"backend": "pytorch"},
                ["GPU-a"],
            )
            for name in ("ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
        ),
    ],
)
def test_a_run_s_devices_where_none_has_a_uuid(
    done: dict[str, Any], config: dict[str, Any], devices: list[str]
) -> None:
    assert energy_devices(done, config, beside_cpu(zeus_card())) == devices
    nvidia = card.recording([], card.info(), zeus_card())
    assert energy_devices(done, config, nvidia) == done["devices"]
    assert energy_devices(done, config, card.recording([], NONE_OF_NVIDIA)) == done["devices"]


@pytest.mark.parametrize("more", [{}, {"unavailable": "it stands still at 0"}])
def test_one_of_two_cards_is_not_guessed_even_where_the_other_cannot_be_read(
    more: dict[str, Any],
) -> None:
    engine_record = IN_PROCESS | {"devices": ["GPU-a"]}
    samples = beside_cpu(zeus_card(), zeus_card("amd:1", **more))
    assert energy_devices(engine_record, {"backend": "pytorch"}, samples) == ["GPU-a"]
    unread = beside_cpu(zeus_card(unavailable="it stands still at 0"))
    assert energy_devices(engine_record, {"backend": "pytorch"}, unread) == ["GPU-a"]


def test_a_sensor_that_is_missing_says_why_and_is_never_replaced() -> None:
    samples = card.recording(rapl_rows("cpu:package-0", 50.0), NONE_OF_NVIDIA, PACKAGE)
    result = account(samples, WINDOW, devices=())
    assert result.total.gross_j == pytest.approx(50.0 * 20, rel=1e-3)
    (missing,) = [reading for reading in result.readings if reading.scope == "gpu"]
    assert missing.unavailable == "no driver"
    requested = account(samples, WINDOW, devices=(), headline="nvml")
    assert (requested.headline, requested.total) == ((), None)
    assert requested.energy().unavailable == "nvml: no driver"


def test_the_host_stands_beside_a_measured_card() -> None:
    infos = [
        card.info(),
        PACKAGE,
        card.info("dram:package-0", "rapl", scope="dram"),
        card.info("cpu", "codecarbon", "estimated", "cpu"),
    ]
    rows = GPU_ROWS + rapl_rows("cpu:package-0", 50.0) + rapl_rows("dram:package-0", 5.0)
    samples = card.recording(rows + model_rows("cpu", 30.0), *infos)
    result = account(samples, WINDOW)
    assert [reading.device for reading in result.headline] == [card.UUID]
    assert len(result.readings) == 5
    cpu = account(samples, WINDOW, headline="rapl")
    assert cpu.total.gross_j == pytest.approx(55.0 * 20, rel=1e-3)
    assert cpu.energy().scopes == ["cpu", "dram"]


def test_an_estimate_has_no_interval_and_no_sensors_codes() -> None:
    info = card.info("cpu", "codecarbon", "estimated", "cpu")
    result = account(card.recording(model_rows("cpu", 30.0), info), (card.ns(20), card.ns(20.9)))
    (reading,) = result.readings
    assert (reading.kind, reading.channel, reading.headline) == ("estimated", "model", True)
    assert reading.gross_j == pytest.approx(27.0)
    assert reading.u95_j is None
    assert reading.u_sys_j is None
    assert result.validity == {}


def test_a_card_lost_midway_has_no_energy_but_a_reason() -> None:
    rows = [row for row in GPU_ROWS if row.t_ns < card.ns(30)]
    rows.append(SampleRow(card.ns(59), "host", "recorder", "heartbeat", note="stopped"))
    result = account(card.recording(rows), WINDOW)
    assert all(reading.gross_j is None and reading.unavailable for reading in result.readings)
    assert result.energy().gross_j is None
    assert result.energy().unavailable


def test_rest_is_taken_off_for_the_net_energy() -> None:
    power = card.Power([-10, 10, 50], [60, 300, 60])
    phases = [("idle_before", card.ns(1), card.ns(9)), ("idle_after", card.ns(51), card.ns(59))]
    result = account(card.record(power), WINDOW, phases)
    reading = result.headline[0]
    assert reading.idle_j == pytest.approx(60 * 20, rel=1e-3)
    assert reading.net_j == pytest.approx(240 * 20, rel=1e-2)
    assert result.energy().net_j == reading.net_j


def test_stretches_can_be_cut_anew() -> None:
    result = account(card.recording(GPU_ROWS), WINDOW)
    parts = [result.stretch(card.ns(a), card.ns(a + 5)).gross_j for a in (20, 25, 30, 35)]
    assert sum(parts) == pytest.approx(result.total.gross_j, rel=1e-9)
    assert result.stretch(card.ns(50), card.ns(70)) is None


def test_a_card_of_the_run_that_cannot_be_read_leaves_no_headline_and_a_reason() -> None:
    """The energy of half a run is not that of the run."""
    lost = card.info("GPU-2", unavailable="GPU is lost")
    samples = card.recording(GPU_ROWS, card.info(), lost)
    result = account(samples, WINDOW, devices={card.UUID, "GPU-2"})
    assert result.headline == ()
    assert result.energy(100, 100, 10).gross_j is None
    assert result.energy(100, 100, 10).per_output_token_j is None
    assert "GPU-2: GPU is lost" in result.energy().unavailable
    # What the other card drew is there for whoever asks, but it is no total.
    (read,) = [
        reading for reading in result.readings if reading.channel == "counter" and reading.gross_j
    ]
    assert read.gross_j == pytest.approx(true_j(), rel=0.01)
    requested = account(samples, WINDOW, devices={card.UUID, "GPU-2"}, headline="nvml")
    assert requested.energy().gross_j is None
    beside = account(samples, WINDOW, devices={card.UUID})
    assert beside.energy().gross_j == pytest.approx(true_j(), rel=0.01)


def test_a_cpu_of_two_that_cannot_be_read_leaves_no_headline_and_a_reason() -> None:
    """One socket's energy is not that of a run on both."""
    denied = card.info("cpu:package-1", "rapl", scope="cpu", unavailable="permission denied")
    samples = card.recording(rapl_rows("cpu:package-0", 50.0), PACKAGE, denied)
    for requested in (None, "rapl"):
        energy = account(samples, WINDOW, devices=(), headline=requested).energy(100)
        assert (energy.gross_j, energy.per_output_token_j) == (None, None)
        assert energy.unavailable.endswith("cpu:package-1: permission denied")
    # Memory that is not counted anywhere is no part of what the headline says that it holds.
    memory = card.info("dram:package-0", "rapl", scope="dram", unavailable="stands still")
    samples = card.recording(rapl_rows("cpu:package-0", 50.0), PACKAGE, memory)
    energy = account(samples, WINDOW, devices=()).energy()
    assert (energy.scopes, energy.gross_j) == (["cpu"], pytest.approx(50.0 * 20, rel=1e-3))


@pytest.mark.parametrize("asked", [None, "rapl"])
@pytest.mark.parametrize(
    ("unread", "platform", "scopes", "power_w"),
    [
        ("dram:package-1", False, ["cpu"], 100.0),
        ("dram:package-1", True, ["cpu"], 100.0),
        ("cpu:package-1", True, ["host"], 200.0),
        ("host", False, ["cpu", "dram"], 110.0),
    ],
)
def test_a_scope_that_was_read_in_part_is_no_part_of_the_headline(
    asked: str | None, unread: str, platform: bool, scopes: list[str], power_w: float
) -> None:
    """A socket without memory takes nothing from what both CPUs drew."""
    powers_w = {f"cpu:package-{n}": 50.0 for n in (0, 1)}
    powers_w |= {f"dram:package-{n}": 5.0 for n in (0, 1)}
    powers_w |= {"host": 200.0} if platform or unread == "host" else {}
    infos, rows = [], []
    for device, device_w in powers_w.items():
        gone = {"unavailable": "stands still at 0"} if device == unread else {}
        infos.append(card.info(device, "rapl", scope=device.partition(":")[0], **gone))
        rows += [] if gone else rapl_rows(device, device_w)
    energy = account(card.recording(rows, *infos), WINDOW, devices=(), headline=asked).energy()
    assert energy.scopes == scopes
    assert energy.gross_j == pytest.approx(power_w * 20, rel=1e-3)


def test_two_cards_in_lockstep_share_what_their_sensors_do_not_see() -> None:
    """Both counters miss the same of the same load: no more than twice, and no less."""
    sensor = card.Sensor(window_s=0.025, counter_from="samples")
    load = card.work(3, 28)
    rows = card.rows_of(load, sensor, 30)
    second = [replace(row, device="GPU-2") for row in rows]
    devices = (card.UUID, "GPU-2")
    behaviours = {("nvml", device): Behaviour("sum") for device in devices}
    infos = [card.info(device, name="NVIDIA A100") for device in devices]
    window = window_ns(10, 20)
    first = account(card.recording(rows, infos[0]), window, behaviours=behaviours).total
    both = account(card.recording(rows + second, *infos), window, behaviours=behaviours).total
    assert both.gross_j == pytest.approx(2 * first.gross_j)
    assert both.shared_u95_j == pytest.approx(2 * first.shared_u95_j)
    assert both.bound_j == pytest.approx(2 * first.bound_j)
    assert both.gross_u95_j > 1.9 * first.gross_u95_j
    assert abs(both.gross_j - 2 * float(load.energy(10, 20))) <= both.gross_u95_j


def reading(device: str, scope: str, kind: str = "measured", **values: Any) -> Reading:
    values = {"gross_j": 1.0, "u_sys_j": 0.5, **values}
    return Reading(device=device, sensor="s", kind=kind, scope=scope, channel="counter", **values)


def two_cards(**values: float) -> EnergySum:
    energy_sum = total([reading(device, "gpu", **values) for device in ("GPU-1", "GPU-2")])
    assert energy_sum is not None
    return energy_sum


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (reading("GPU-1", "gpu"), reading("GPU-1", "gpu")),
        (reading("GPU-1", "gpu"), reading("module:GPU-1", "module")),
        (reading("cpu:package-0", "cpu"), reading("module:GPU-1", "module")),
        (reading("dram:package-0", "dram"), reading("module:GPU-1", "module")),
        (reading("GPU-1", "gpu"), reading("host", "host")),
        (reading("dram:package-0", "dram"), reading("host", "host")),
        (reading("host", "host"), reading("other", "host")),
        (reading("GPU-1", "gpu"), reading("cpu", "cpu", "estimated")),
    ],
)
def test_what_overlaps_or_differs_in_kind_has_no_sum(one: Reading, other: Reading) -> None:
    with pytest.raises(NotAdditiveError):
        total([one, other])
    with pytest.raises(NotAdditiveError):
        total([other, one])


def test_chance_adds_in_quadrature_and_what_cards_share_adds_up() -> None:
    """Two cards in lockstep miss the same: 4 J each of it, and 3 J each by chance."""
    half_widths = {"gross_u95_j": 5.0, "net_u95_j": 5.0, "shared_u95_j": 4.0, "bound_j": 20.0}
    energy_sum = two_cards(**half_widths, net_j=0.5)
    assert (energy_sum.gross_j, energy_sum.net_j) == (2.0, 1.0)
    assert energy_sum.gross_u95_j == pytest.approx((8.0**2 + 2 * 3.0**2) ** 0.5)
    assert energy_sum.net_u95_j == energy_sum.gross_u95_j
    assert (energy_sum.shared_u95_j, energy_sum.bound_j, energy_sum.u_sys_j) == (8.0, 40.0, 1.0)


def test_cards_that_cool_alike_have_rests_that_are_off_the_same_way() -> None:
    """Each card's gross energy is off by 3 J by chance, and its rest by 4 J as the other's is."""
    energy_sum = two_cards(gross_u95_j=3.0, net_u95_j=5.0, shared_u95_j=0.0, net_j=0.5)
    assert energy_sum.gross_u95_j == pytest.approx((2 * 3.0**2) ** 0.5)
    assert energy_sum.net_u95_j == pytest.approx((2 * 3.0**2 + 8.0**2) ** 0.5)


def test_an_unknown_energy_or_interval_leaves_none() -> None:
    assert total([]) is None
    assert total([reading("GPU-1", "gpu"), reading("GPU-2", "gpu", gross_j=None)]) is None
    energy_sum = total([reading("GPU-1", "gpu"), reading("cpu", "cpu")])
    assert energy_sum.gross_j == 2.0
    assert energy_sum.net_j is None
    assert energy_sum.gross_u95_j is None
