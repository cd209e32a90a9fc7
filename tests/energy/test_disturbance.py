"""What disturbs a window from outside: found where it is, and nothing said where it is not."""

import numpy as np
import pytest

from energy.metering import H100, counter_rows, window_ns
from llenergymeasure.energy.account import account
from llenergymeasure.energy.disturbance import cpu_use
from llenergymeasure.recording.samples import HOST_DEVICE, RECORDER, SampleRow, Samples
from llenergymeasure.sensors.base import Quantity
from llenergymeasure.sensors.host_cpu import OTHERS_MAX
from llenergymeasure.validity_codes import DISQUALIFYING
from support import energy_card as card

WINDOW = window_ns(20.0, 40.0)
EVERY_10_MS = np.arange(0.0, 60.0, 0.01)
RAPL = card.info("cpu:package-0", sensor="rapl", scope="cpu", quantities=("energy_counter_j",))
MODEL = card.info(
    "cpu", sensor="codecarbon", kind="estimated", scope="cpu", quantities=("power_model_w",)
)
RECORDED = {
    "gpu": (
        card.info(name=H100, quantities=card.H100.quantities),
        card.rows_of(card.steps(60), card.H100, 60),
    ),
    "rapl": (RAPL, counter_rows(EVERY_10_MS, 50 * EVERY_10_MS, RAPL.device, "rapl")),
    "estimated": (
        MODEL,
        [
            SampleRow(card.ns(t), "cpu", "codecarbon", "power_model_w", 20.0, card.ns(t - 0.25))
            for t in np.arange(0.25, 60.0, 0.25)
        ],
    ),
}


def host(quantity: Quantity, t_s: float, value: float | None, note: str | None = None) -> SampleRow:
    return SampleRow(card.ns(t_s), HOST_DEVICE, RECORDER, quantity, value, note=note)


def cpus(
    own: float = 1.0,
    others: float = 0.0,
    *,
    others_elsewhere: float = 0.0,
    steal: float = 0.0,
    throttled: float | None = None,
    ours: int = 4,
    machine: int = 8,
) -> list[SampleRow]:
    """A minute of a machine on which so many CPUs are used, on average, from 20 to 40 s."""
    rows = []
    for t in range(61):
        inside = min(max(t - 20, 0), 20)
        rows += [
            host("cpu_total_s", t, ours * t),
            host("cpu_busy_s", t, (own + others) * inside),
            host("cpu_steal_s", t, steal * inside),
            host("machine_total_s", t, machine * t),
            host("machine_busy_s", t, (own + others + others_elsewhere) * inside),
            host("cpu_own_s", t, own * inside),
            host("cpu_pressure_s", t, 0.1 * inside),
        ]
        if throttled is not None:
            rows += [
                host("quota_periods", t, 10 * t),
                host("quota_throttled", t, throttled * 10 * inside),
            ]
    return rows


def recorded(rows: list[SampleRow], kind: str = "gpu") -> Samples:
    info, energy = RECORDED[kind]
    return card.recording(sorted([*energy, *rows], key=lambda row: row.t_ns), info)


def codes(rows: list[SampleRow], kind: str = "gpu", **more) -> dict[str, str]:
    return dict(account(recorded(rows, kind), WINDOW, **more).validity)


@pytest.mark.parametrize("kind", ["gpu", "rapl", "estimated"])
def test_a_quiet_machine_has_no_code(kind: str) -> None:
    validity = codes(cpus(own=3.9, others=0.05, others_elsewhere=0.1, throttled=0.01), kind)
    assert not {"cpu_contended", "other_process", "stalled"} & set(validity)


def test_who_used_what_is_told() -> None:
    usage = cpu_use(recorded(cpus(own=1.0, others=2.0, steal=0.4, throttled=0.25)), WINDOW)
    assert usage.cpus == pytest.approx(4)
    assert usage.own_cpus == pytest.approx(1)
    assert usage.others_cpus == pytest.approx(2)
    assert usage.others_share == pytest.approx(0.5)
    assert usage.others_share_of_machine == pytest.approx(0.25)
    assert usage.steal_share == pytest.approx(0.1)
    assert usage.throttled_share == pytest.approx(0.25)
    assert usage.pressure_share == pytest.approx(0.1)
    assert usage.unavailable is None


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (cpus(others=1.0), "other processes used 25.0 %"),
        (cpus(others=4 * OTHERS_MAX * 1.1), "other processes used 5.5 %"),
        (cpus(steal=1.0), "other virtual machines took 25.0 %"),
        (cpus(throttled=0.5), "quota held the run back 50.0 %"),
    ],
)
@pytest.mark.parametrize("kind", ["gpu", "estimated"])
def test_starved_of_the_cpus_it_is_marked(rows: list[SampleRow], says: str, kind: str) -> None:
    validity = codes(rows, kind)
    assert says in validity["cpu_contended"]
    assert not DISQUALIFYING & set(validity)


def test_where_the_cpus_are_metered_strangers_disqualify() -> None:
    validity = codes(cpus(others=1.0), "rapl")
    assert "cpu_contended" in validity
    assert "used 12.5 % of the machine's CPUs" in validity["other_process"]


def test_strangers_on_other_cpus_are_in_the_meter_and_take_nothing_away() -> None:
    rows = cpus(others=0.0, others_elsewhere=2.0)
    assert "cpu_contended" not in codes(rows, "gpu")
    validity = codes(rows, "rapl")
    assert "used 25.0 % of the machine's CPUs" in validity["other_process"]
    assert validity["cpu_contended"]


def test_a_server_that_is_not_the_runs_own_is_no_stranger() -> None:
    assert "cpu_contended" not in codes(cpus(others=3.0), own_server=False)
    usage = cpu_use(recorded(cpus(others=3.0)), WINDOW, own_server=False)
    assert usage.others_share is None
    assert "not the run's own" in str(usage.unavailable)


def test_a_recording_that_says_nothing_of_the_cpus() -> None:
    usage = cpu_use(recorded([]), WINDOW)
    assert usage.others_share is None
    assert usage.unavailable is not None
    assert "cpu_contended" not in codes([])


def beats(*jumps: tuple[float, float]) -> list[SampleRow]:
    """Heartbeats of a clock that jumped: when, and by how much."""
    return [
        host("heartbeat", t, 100.0 + 1e-5 * (t % 2) + sum(by for at, by in jumps if t > at))
        for t in np.arange(0, 60, 0.5)
    ]


@pytest.mark.parametrize("at_s", [5.0, 19.0, 20.1, 30.0, 39.9, 41.0])
def test_a_machine_that_was_suspended_within_the_window(at_s: float) -> None:
    says = codes(beats((at_s, 7.0))).get("stalled")
    is_within = 20 < at_s < 40
    assert says == ("the machine was suspended for 7.0 s within the window" if is_within else None)


def test_heartbeats_without_a_value_say_nothing() -> None:
    assert "stalled" not in codes([host("heartbeat", t, None) for t in range(60)])


def test_a_process_that_stood_still_within_the_window() -> None:
    rows = [host("stopped_pid", t, 4711.0, "engine") for t in (30.0, 30.2, 30.4)]
    validity = codes(rows)
    assert validity["stalled"] == "process 4711 of the run was stopped for about 0.6 s of it"
    assert "stalled" in DISQUALIFYING
    assert "stalled" not in codes([host("stopped_pid", 19.0, 4711.0), host("stopped_pid", 41, 1.0)])
