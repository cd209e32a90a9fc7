"""Which GPUs a run gets, beside other runs, and what it finds on them; on simulated cards."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llenergymeasure.machine.gpus import allotment
from llenergymeasure.machine.gpus.locks import GpuBusyError
from llenergymeasure.run import gpu_reservation
from llenergymeasure.run.gpu_reservation import Reservation
from machine.conftest import UUID, read_back
from nvml_sim import sim
from support.limits import AS_FOUND, held_by_another, killed_while_holding

FIRST, SECOND, THIRD = "GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3"
RESTORED = {"restored": True, "unchanged_meanwhile": True, "left": {}}


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children find the simulated driver; this process was not started with it."""
    monkeypatch.setattr(allotment, "driver_there", lambda: True)


@pytest.fixture
def three(simulated: Any) -> None:
    simulated(*(sim.Device(uuid=uuid) for uuid in (FIRST, SECOND, THIRD)))


def never(_seconds: float) -> bool:
    return False


def at_once(_seconds: float) -> bool:
    return True


def reserve(
    config: Mapping[str, Any] | None = None, rest: Callable[[float], bool] = never
) -> Reservation | None:
    return Reservation.make({"backend": "pytorch", **(config or {})}, "a run", rest)


def cards(reservation: Reservation | None) -> tuple[str, ...]:
    assert reservation is not None
    return reservation.allotment.uuids


def engine_cards(reservation: Reservation | None) -> str | None:
    """The cards that the engine is told of, which it is by number."""
    assert reservation is not None
    numbers = reservation.environment().get("CUDA_VISIBLE_DEVICES")
    three = (FIRST, SECOND, THIRD)
    return numbers and ",".join(three[int(number)] for number in numbers.split(","))


@pytest.mark.usefixtures("three")
def test_runs_that_know_nothing_of_each_other_get_a_card_each() -> None:
    runs = [reserve(rest=at_once) for _ in range(3)]
    assert [cards(run) for run in runs] == [(FIRST,), (SECOND,), (THIRD,)]
    assert [engine_cards(run) for run in runs] == [FIRST, SECOND, THIRD]
    assert reserve(rest=at_once) is None


@pytest.mark.usefixtures("three")
def test_a_run_that_waits_takes_the_card_that_becomes_free_first() -> None:
    _one, second, _three = (reserve() for _ in range(3))
    assert second is not None

    def rest(_seconds: float) -> bool:
        second.release()
        return False

    reservation = reserve(rest=rest)
    assert cards(reservation) == (SECOND,)
    assert engine_cards(reservation) == SECOND
    assert reservation is not None
    assert set(reservation.allotment.memory_used_bytes) == {SECOND}


@pytest.mark.usefixtures("three")
def test_several_cards_are_those_that_are_free() -> None:
    assert cards(reserve()) == (FIRST,)
    reservation = reserve({"pytorch": {"num_processes": 2}})
    assert cards(reservation) == (SECOND, THIRD)
    assert engine_cards(reservation) == f"{SECOND},{THIRD}"


@pytest.mark.usefixtures("three")
def test_cards_that_the_study_names_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_reservation, "LOCK_WAIT_S", 0.0)
    by_name = reserve({"gpu": {"devices": [1]}})
    assert (cards(by_name), engine_cards(by_name)) == ((SECOND,), SECOND)
    with pytest.raises(GpuBusyError, match=f"GPU {SECOND} by a run"):
        reserve({"gpu": {"devices": [SECOND]}})
    by_place = {"pytorch": {"device_map": "cuda:1"}}
    with pytest.raises(GpuBusyError, match=f"GPU {SECOND} by a run"):
        reserve(by_place)
    assert by_name is not None
    by_name.release()
    reservation = reserve(by_place)
    assert cards(reservation) == (SECOND,)
    assert engine_cards(reservation) is None, "cuda:1 is the second of all that the engine sees"


@pytest.mark.usefixtures("three")
def test_of_the_cards_that_a_scheduler_allots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{THIRD},{SECOND}")
    assert cards(reserve()) == (THIRD,)
    assert cards(reserve()) == (SECOND,)
    assert reserve(rest=at_once) is None


@pytest.mark.usefixtures("three")
def test_what_only_slurms_variable_names_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_GPUS", "2")
    reservation = reserve()
    assert (cards(reservation), engine_cards(reservation)) == ((THIRD,), THIRD)


def test_a_run_keeps_what_it_holds_and_then_how_it_was_put_back(simulated: Any) -> None:
    environment = simulated()
    gpu = {"power_limit_w": 250}
    reserved = reserve({"gpu": gpu})
    assert reserved
    assert reserved.limits is None
    assert not reserved.limits_changed
    reserved.set_limits(gpu)
    assert reserved.limits is not None
    assert reserved.limits["held"][UUID]["power_limit_w"] == 250
    assert reserved.limits["restored"] is None
    assert reserved.limits_changed
    reserved.release()
    assert reserved.limits | RESTORED == reserved.limits
    assert not reserved.limits_changed
    assert read_back(environment) == AS_FOUND


def test_who_gets_the_card_puts_back_what_its_last_run_left(simulated: Any) -> None:
    environment = simulated()
    killed_while_holding(environment)
    reserved = reserve()
    assert reserved
    assert read_back(environment) == AS_FOUND
    reserved.set_limits({"power_limit_w": 150})
    assert reserved.limits is not None
    assert reserved.limits["held"][UUID]["power_limit_before_w"] == 400
    reserved.release()
    assert read_back(environment) == AS_FOUND


def test_who_waits_for_the_card_puts_back_what_was_left_meanwhile(simulated: Any) -> None:
    environment = simulated()
    with held_by_another(environment) as process:

        def kill(_seconds: float) -> bool:
            process.kill()
            process.wait()
            return False

        reserved = reserve(rest=kill)
        assert reserved
        assert read_back(environment) == AS_FOUND
        reserved.release()
