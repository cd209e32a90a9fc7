"""Which GPUs there are, and which a process would use."""

import errno
import os
import re
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.cli import doctor_machine
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.machine.gpus.inventory import (
    Gpu,
    Inventory,
    Selection,
    discover,
    expected_gpu,
    select_gpus,
    visible_gpus,
)
from machine.conftest import run_json
from nvml_sim import sim
from support.recording import card_environment, uuid

# NVML's order 0, 1, 2; on the PCI bus 1 comes first, then 2, then 0.
GPUS = tuple(
    Gpu(index, uuid(index), "card", pci_bus_id=f"00000000:{bus}:00.0")
    for index, bus in enumerate(("c1", "01", "41"))
)
ALL = Inventory(GPUS)
FIRST, SECOND, THIRD = (GPUS[index].uuid for index in (1, 2, 0))


def _uuids(selection: Selection) -> list[str]:
    return [gpu.uuid for gpu in selection.gpus]


def _ask(code: str, variables: dict[str, str]) -> Any:
    """Run code that sets `answer`, in a process that sees the simulated cards."""
    source = (
        "import json\nfrom dataclasses import asdict\n"
        "from llenergymeasure.machine.gpus.inventory import *\n"
        f"{code}\nprint(json.dumps(answer))"
    )
    return run_json(source, variables, module="llenergymeasure.machine.gpus.inventory")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, [FIRST, SECOND, THIRD]),
        *(("0", [FIRST]), ("2,0", [THIRD, FIRST]), (" 1 , 0 ", [SECOND, FIRST]), ("0,0", [FIRST])),
        *(("GPU-00000001", [FIRST]), (f"{SECOND},{FIRST}", [SECOND, FIRST])),
        *(("", []), ("-1", []), ("NoDevFiles", []), ("0,-1,1", [FIRST])),  # a way to say: no more
    ],
)
def test_cuda_visible_devices_as_people_write_it(value: str | None, expected: list[str]) -> None:
    """CUDA's index follows the PCI bus, not NVML's index."""
    selection = visible_gpus(ALL, {} if value is None else {"CUDA_VISIBLE_DEVICES": value})
    assert _uuids(selection) == expected
    assert selection.source == ("all" if value is None else "CUDA_VISIBLE_DEVICES")
    assert not selection.warnings


@pytest.mark.parametrize(
    ("value", "expected", "stops_at"),
    [
        ("1,7,0", [SECOND], "7"),
        ("GPU-0000000", [], "GPU-0000000"),  # fits all of them
        ("\u00b9", [], "\u00b9"),  # a digit, and no number
        (f"MIG-{FIRST}/1/0", [], f"MIG-{FIRST}/1/0"),  # as drivers before 470 wrote it
    ],
)
def test_cuda_stops_at_the_first_name_that_is_not_there(
    value: str, expected: list[str], stops_at: str
) -> None:
    selection = visible_gpus(ALL, {"CUDA_VISIBLE_DEVICES": value})
    assert _uuids(selection) == expected
    assert repr(stops_at) in selection.warnings[0]


def test_an_index_among_different_cards_is_warned_of_unless_the_order_is_fixed() -> None:
    mixed = Inventory((*GPUS[:2], Gpu(2, uuid(2), "another", pci_bus_id="00000000:41:00.0")))
    by_index = {"CUDA_VISIBLE_DEVICES": "0"}

    assert "CUDA_DEVICE_ORDER" in visible_gpus(mixed, by_index).warnings[0]
    assert not visible_gpus(mixed, {**by_index, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}).warnings
    assert not visible_gpus(mixed, {"CUDA_VISIBLE_DEVICES": FIRST}).warnings


@pytest.mark.parametrize(
    ("there", "variables", "expected"),
    [
        (ALL, {"SLURM_JOB_GPUS": "1-2"}, [FIRST, SECOND]),
        (ALL, {"SLURM_JOB_GPUS": "0"}, [THIRD]),
        (ALL, {"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0"}, [FIRST]),
        # Under cgroups the job's card is the only one, with index 0, whatever SLURM calls it.
        (Inventory(GPUS[:1]), {"SLURM_JOB_GPUS": "5"}, [THIRD]),
    ],
)
def test_slurm_names_nvmls_indices_where_nothing_else_tells_cards_apart(
    there: Inventory, variables: dict[str, str], expected: list[str]
) -> None:
    assert _uuids(visible_gpus(there, variables)) == expected


def test_named_by_nvml_index_or_uuid() -> None:
    assert _uuids(select_gpus(["2", GPUS[0].uuid, "2"], ALL)) == [GPUS[2].uuid, GPUS[0].uuid]


@pytest.mark.parametrize("name", ["7", "GPU-", "GPU-0000000", "nonsense"])
def test_a_name_that_fits_no_card_or_several_is_an_error_that_lists_them(name: str) -> None:
    with pytest.raises(ConfigurationError, match=uuid(1)) as caught:
        select_gpus([name], ALL)
    assert name in str(caught.value)


def test_cards_are_described(tmp_path: Path) -> None:
    card = sim.Device(name="NVIDIA H200", uuid=uuid(1), keys={"pci": "00000000:c1:00.0"})
    variables = card_environment(tmp_path, [card, sim.Device(uuid=uuid(2))])

    answer = _ask("answer = asdict(discover())", variables)

    first, second = answer["gpus"]
    assert (first["index"], first["uuid"], first["name"]) == (0, uuid(1), "NVIDIA H200")
    assert first["pci_bus_id"].endswith("c1:00.0")
    assert first["memory_total_bytes"] > 0
    assert first["power_limit_w"]["min"] <= first["power_limit_w"]["enforced"]
    assert first["driver"] == answer["driver"]
    assert second["uuid"] == uuid(2)
    assert answer["unavailable"] is None


def test_a_part_of_a_card_stands_for_the_whole_card(tmp_path: Path) -> None:
    part = "MIG-00000001-0000-4000-8000-000000000000"
    mig = {"mig": True, "mig_uuids": [part]}
    cards = [sim.Device(uuid=uuid(1)), sim.Device(uuid=uuid(2), keys=mig)]
    variables = card_environment(tmp_path, cards)

    answer = _ask(
        f"answer = asdict(visible_gpus(discover(), {{'CUDA_VISIBLE_DEVICES': {part!r}}}))",
        variables,
    )

    assert [gpu["uuid"] for gpu in answer["gpus"]] == [uuid(2)]
    assert answer["gpus"][0]["mig_enabled"] is True
    assert "whole card" in answer["warnings"][0]


def test_without_a_driver_the_reason_and_a_remedy_are_given() -> None:
    code = "answer = asdict(discover())"
    answer = _ask(code, {"PATH": "/usr/bin:/bin"})

    if answer["gpus"]:
        pytest.skip("this machine has NVIDIA GPUs")
    assert answer["unavailable"]
    assert answer["remedy"]


@pytest.mark.parametrize(
    ("code", "says", "remedy"),
    [
        (18, "NVML does not start: .*[Vv]ersion", "of one version"),
        (9, "NVML does not start: Driver Not Loaded", "nvidia-smi"),
        (999, "NVML does not start: Unknown", "nvidia-smi"),
        (4, "NVML does not start: Insufficient Permissions", "may not open /dev/nvidia"),
        (12, "no NVIDIA driver", "install its driver"),
    ],
)
def test_an_nvml_that_does_not_start_says_why_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, code: int, says: str, remedy: str
) -> None:
    import pynvml

    def refuse() -> None:
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    inventory = discover()
    assert not inventory.gpus
    assert re.search(says, str(inventory.unavailable))
    assert remedy in str(inventory.remedy)


@pytest.mark.parametrize("visible_devices", [None, "0"])
def test_a_card_that_is_off_the_bus_is_none_of_cudas(
    tmp_path: Path, visible_devices: str | None
) -> None:
    cards = [
        sim.Device(uuid=uuid(1)),
        sim.Device(uuid=uuid(2), keys={"fail_after_s": 0}),
        sim.Device(uuid=uuid(3)),
    ]
    environ = {} if visible_devices is None else {"CUDA_VISIBLE_DEVICES": visible_devices}
    answer = _ask(
        f"answer = asdict(visible_gpus(discover(), {environ!r}))", card_environment(tmp_path, cards)
    )

    expected = [uuid(1), uuid(3)] if visible_devices is None else [uuid(1)]
    assert [gpu["uuid"] for gpu in answer["gpus"]] == expected
    (warning,) = answer["warnings"]
    assert "GPU 1 of NVML does not answer" in warning


def test_cudas_second_is_the_third_where_the_second_is_off_the_bus() -> None:
    dead = replace(GPUS[2], pci_bus_id="", unavailable="GPU is lost")  # 41: the second on the bus
    three = Inventory((*GPUS[:2], dead))

    assert _uuids(visible_gpus(three, {"CUDA_VISIBLE_DEVICES": "1"})) == [THIRD]


def test_where_no_card_answers_whoever_looks_learns_why() -> None:
    dead = Inventory(tuple(replace(gpu, unavailable="GPU is lost") for gpu in GPUS))

    assert {gpu.unavailable for gpu in visible_gpus(dead, {}).gpus} == {"GPU is lost"}


def test_another_packages_bindings_are_named_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "pynvml.py").write_text("def nvmlInit(): pass\n")
    answer = _ask(
        f"import sys; sys.path.insert(0, {str(old)!r}); answer = asdict(discover())",
        {"PATH": "/usr/bin:/bin"},
    )

    assert answer["gpus"] == []
    assert str(old) in answer["unavailable"]
    assert "nvidia-ml-py" in answer["remedy"]


GIVEN = {"SLURM_JOB_ID": "7", "SLURM_STEP_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0"}


@pytest.mark.parametrize(
    ("variables", "device", "words"),
    [
        (GIVEN, None, "SLURM gave a GPU to this job, 7 (SLURM_STEP_GPUS=0)"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "1,2"}, None, "SLURM_JOB_GPUS=1,2"),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "3"}, None, None),  # of the user's shell
        (GIVEN, "kfd", None),  # a card by AMD
        ({}, "nvidia0", "there is "),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None, None),
        ({"SLURM_JOB_ID": "7"}, "nvidiactl", None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, None, None),  # of a shell, on a laptop
        ({}, None, None),
    ],
)
def test_a_gpu_that_should_be_here_and_does_not_answer_is_wrong(
    variables: dict[str, str],
    device: str | None,
    words: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in GIVEN.keys() | {"SLURM_JOB_GPUS"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if device is not None:
        (tmp_path / device).touch()
    none_here = Inventory(unavailable="no NVIDIA driver", remedy="install it")
    monkeypatch.setattr(doctor_machine, "discover_if_answered", lambda: none_here)
    monkeypatch.setattr(doctor_machine, "expected_gpu", partial(expected_gpu, tmp_path))
    (finding,) = doctor_machine.gpus()
    assert finding.state == ("absent" if words is None else "wrong")
    assert finding.remedy == "install it"
    assert "no NVIDIA driver" in finding.detail
    assert (words or "no NVIDIA") in finding.detail


@pytest.mark.parametrize(("number", "is_expected"), [(errno.EPERM, False), (errno.EIO, True)])
def test_a_card_that_the_control_group_refuses_was_not_given(
    number: int, is_expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    (tmp_path / "nvidia0").touch()
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        reason = expected_gpu(tmp_path)
    assert (reason is not None) == is_expected


def test_a_device_file_that_a_removed_driver_left_promises_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    with socket.socket(socket.AF_UNIX) as device:
        monkeypatch.chdir(tmp_path)
        device.bind("nvidia0")  # is opened with the same error as a device without a driver
        assert expected_gpu(tmp_path) is None
        (tmp_path / "nvidia1").touch()
        assert expected_gpu(tmp_path) == f"there is {tmp_path / 'nvidia1'}"
