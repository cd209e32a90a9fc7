"""What is recorded of machine and software, and that no secret is."""

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.containers.container_setup import inside_variables
from llenergymeasure.machine.environment import (
    container,
    cuda_runtime,
    environment,
    packages,
    provenance,
    source_hash,
    variables,
)
from llenergymeasure.machine.host import host
from machine.conftest import LIMITED, UUID, run_json
from nvml_sim import sim

GATHER = "import json\nfrom llenergymeasure.machine.environment import environment\n"
GATHER += "print(json.dumps(environment()))"


def gathered(machine: dict[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = run_json(GATHER, machine, module="llenergymeasure.machine.environment")
    return record


def test_the_packages_are_those_that_importlib_finds() -> None:
    expected: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        expected.setdefault(name, distribution.version)
    assert packages() == dict(sorted(expected.items()))


def test_packages_of_every_form_are_found(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, name in (
        (first, "Zope.Interface_x-1.2.dist-info"),
        (first, "old_way-0.9-py3.11.egg-info"),
        (first, "local-2.0+cu130.dist-info"),
        (first, "no_version.dist-info"),
        (second, "local-1.0.dist-info"),
    ):
        (folder / name).mkdir(parents=True)
    assert packages([str(first), str(second), str(tmp_path / "absent")]) == {
        "local": "2.0+cu130",
        "old-way": "0.9",
        "zope-interface-x": "1.2",
    }


def test_the_host_is_described() -> None:
    record = host()
    assert record["kernel"]
    assert record["memory_total_bytes"] > 100 * 1024**2
    assert 1 <= record["cpu"]["usable_count"] <= record["cpu"]["logical_count"]


def test_a_machine_without_a_gpu_says_so_with_an_empty_list(tmp_path: Path) -> None:
    machine = sim.environment(sim.Trace(devices=[]).write(tmp_path))
    record = gathered(machine)
    assert record["gpus"] == []
    assert "cuda_driver" not in record


def test_a_gpus_settings_and_condition_are_recorded(simulated: Any) -> None:
    keys = {
        **LIMITED,
        "vbios": "96.00.61.00.01",
        "temperature_c": 41,
        "throttle": [[0, 0x20]],
        "persistence_mode": False,
        "ecc": {"current": True, "pending": False},
        "mig": True,
        "memory": {"total_bytes": 80 * 2**30, "used_bytes": 2**30},
    }
    machine = simulated(
        sim.Device(name="Simulated H200", keys=keys), driver_version="575.1", cuda_version="12.9"
    )
    record = gathered(machine)
    assert record["cuda_driver"] == "12.9"
    (card,) = record["gpus"]
    assert (
        card
        | {
            "uuid": UUID,
            "name": "Simulated H200",
            "vbios": "96.00.61.00.01",
            "driver_version": "575.1",
            "compute_capability": "9.0",
            "memory_total_bytes": 80 * 2**30,
            "memory_used_bytes": 2**30,
            "power_limit_w": 400.0,
            "power_limits_w": {"enforced": 400.0, "default": 400.0, "min": 100.0, "max": 500.0},
            "sm_clock_max_mhz": 1980,
            "throttle_reasons": ["sw_thermal_slowdown"],
            "temperature_celsius": 41,
            "persistence_mode": False,
            "ecc": {"current": True, "pending": False},
            "mig": {"current": True, "pending": True},
        }
        == card
    )


def test_what_a_card_does_not_tell_is_null(simulated: Any) -> None:
    silent = ["nvmlDeviceGetVbiosVersion", "nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"]
    machine = simulated(sim.Device(keys={"not_supported": silent, "ecc": {"supported": False}}))
    (card,) = gathered(machine)["gpus"]
    assert card["vbios"] is None
    assert card["temperature_celsius"] is None
    assert card["ecc"] is None


def test_only_variables_that_matter_are_kept() -> None:
    recorded = variables({"CUDA_VISIBLE_DEVICES": "0", "HOME": "/home/me", "VLLM_MAX_TOKENS": "5"})
    assert recorded == {"CUDA_VISIBLE_DEVICES": "0", "VLLM_MAX_TOKENS": "5"}


def test_a_secret_by_its_name_is_left_out() -> None:
    assert variables({"HF_TOKEN": "anything", "SGLANG_AUTH": "anything"}) == {}


def test_the_command_of_a_meter_is_in_no_record() -> None:
    """Its arguments may be a password; a container's meter needs them."""
    meter = {"LLEM_NODE_METER": "command:/opt/pdu -U admin -P hunter2"}
    assert variables(meter) == {}
    assert inside_variables(meter)["LLEM_NODE_METER"] == meter["LLEM_NODE_METER"]


def test_no_secret_of_the_process_reaches_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_ThisMustNotBeSeenAnywhere"
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HUGGING_FACE_HUB_TOKEN", "LLEM_X", "AWS_SECRET"):
        monkeypatch.setenv(name, f"https://me:{secret}@host/{secret}")
    assert secret not in json.dumps([environment(), provenance()])


def test_the_container_and_its_digest() -> None:
    digest = "sha256:" + "0" * 64
    environ = {"APPTAINER_CONTAINER": "/images/vllm.sif", "LLEM_IMAGE_DIGEST": digest}
    assert container(environ) == {
        "runtime": "apptainer",
        "image": "/images/vllm.sif",
        "digest": digest,
    }


def test_cuda_says_where_its_version_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # it may have been loaded, and with CUDA
    assert cuda_runtime({}, {}) is None
    image = {"CUDA_VERSION": "12.6.3"}
    assert cuda_runtime({}, image) == {"version": "12.6.3", "source": "CUDA_VERSION"}
    wheel = {"nvidia-cuda-runtime-cu12": "12.8.90"}
    assert cuda_runtime(wheel, image) == {
        "version": "12.8.90",
        "source": "nvidia-cuda-runtime-cu12",
    }
    loaded = type(sys)("torch")
    loaded.version = type(sys)("torch.version")
    loaded.version.cuda = "13.0"
    monkeypatch.setitem(sys.modules, "torch", loaded)
    assert cuda_runtime(wheel, image) == {"version": "13.0", "source": "torch.version.cuda"}


def test_the_source_hash_changes_with_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    before = source_hash(tmp_path)
    (tmp_path / "a.py").write_text("x = 2\n")
    assert source_hash(tmp_path) != before
    (tmp_path / "known.json").write_text("{}")
    with_data = source_hash(tmp_path)
    (tmp_path / "known.json").write_text("[]")
    assert source_hash(tmp_path) != with_data
