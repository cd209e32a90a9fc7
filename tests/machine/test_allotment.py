"""Which GPUs an experiment will use, asked of the simulated driver in a process of its own."""

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.machine.gpus import allotment
from llenergymeasure.machine.gpus.allotment import Allotment, Demand, demand, fetch_allotment
from machine.conftest import run_json
from nvml_sim import sim

FIRST, SECOND, THIRD = "GPU-aaaa-1", "GPU-bbbb-2", "GPU-cccc-3"
THREE = [sim.Device(uuid=uuid) for uuid in (FIRST, SECOND, THIRD)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"backend": "pytorch"}, Demand(1)),
        ({"backend": "pytorch", "pytorch": {"num_processes": 2}}, Demand(2)),
        ({"backend": "pytorch", "pytorch": {"tensor_parallel_size": 2}}, Demand(2)),
        ({"backend": "pytorch", "pytorch": {"device_map": "cpu"}}, Demand(0)),
        ({"backend": "pytorch", "pytorch": {"device_map": "auto"}}, Demand(None)),
        ({"backend": "pytorch", "pytorch": {"device_map": "cuda"}}, Demand(1, needed=True)),
        (
            {"backend": "pytorch", "pytorch": {"device_map": "cuda:0"}},
            Demand(1, first=0, needed=True),
        ),
        (
            {"backend": "pytorch", "pytorch": {"device_map": "cuda:1"}},
            Demand(1, first=1, needed=True),
        ),
        (
            {
                "backend": "vllm",
                "vllm": {"engine": {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}},
            },
            Demand(8),
        ),
        ({"backend": "sglang", "sglang": {"engine": {"tp_size": 2, "pp_size": 3}}}, Demand(6)),
        ({"backend": "sglang", "sglang": {"engine": {"device": "cpu", "tp_size": 2}}}, Demand(0)),
        (
            {
                "backend": "sglang",
                "sglang": {"engine": {"tp_size": 4, "dp_size": 4, "enable_dp_attention": True}},
            },
            Demand(4),
        ),
        ({"backend": "tensorrt", "tensorrt": {"tp_size": 2}}, Demand(2, needed=True)),
        ({"backend": "tensorrt"}, Demand(1, needed=True)),
        ({"backend": "openai", "openai": {"base_url": "http://127.0.0.1"}}, Demand(None)),
        ({"backend": "pytorch", "gpu": {"power_limit_w": 300}}, Demand(1, needed=True)),
        (
            {"backend": "vllm", "passthrough_kwargs": {"data_parallel_size": "auto"}},
            Demand(None),
        ),
        ({"backend": "sglang", "passthrough_kwargs": {"tp_size": [2]}}, Demand(None)),
        *(
            ({"backend": "vllm", "passthrough_kwargs": {"tensor_parallel_size": value}}, wanted)
            for value, wanted in (
                *((2.0, Demand(2)), ("2", Demand(2)), (True, Demand(1))),
                *((float("inf"), Demand(None)), (-1, Demand(None))),
            )
        ),
        (
            {"backend": "vllm", "vllm": {"engine": {"prefill_context_parallel_size": 2}}},
            Demand(2),
        ),
        (
            {"backend": "tensorrt", "tensorrt": {"engine": {"context_parallel_size": 2}}},
            Demand(2, needed=True),
        ),
    ],
)
def test_demand(config: dict[str, Any], expected: Demand) -> None:
    assert demand(config) == expected


ASK = """
import json, sys
from dataclasses import asdict
from llenergymeasure.machine.gpus.allotment import GpuAllotmentError, fetch_allotment
config, limit_s = json.loads(sys.argv[1]), float(sys.argv[2])
try:
    found = fetch_allotment(config, limit_s)
except GpuAllotmentError as error:
    print(json.dumps({"error": str(error)}))
else:
    print(json.dumps({**asdict(found), "environment": found.environment()}))
"""


def ask(environment: dict[str, str], config: dict[str, Any], limit_s: float = 60) -> dict[str, Any]:
    """Ask in a process that has the simulated driver from its start, as a supervisor has."""
    words = (json.dumps(config), str(limit_s))
    answer: dict[str, Any] = run_json(ASK, environment, *words, module=allotment.__name__)
    return answer


def test_as_many_as_needed_in_cudas_order(simulated: Any) -> None:
    machine = simulated(*THREE)
    assert ask(machine, {"backend": "pytorch"})["uuids"] == [FIRST]
    config = {"backend": "vllm", "vllm": {"tensor_parallel_size": 2}}
    assert ask(machine, config)["uuids"] == [FIRST, SECOND]
    assert ask(machine, config)["usable"] == [FIRST, SECOND, THIRD]
    assert ask(machine, {"backend": "openai"})["uuids"] == [FIRST, SECOND, THIRD]
    by_place = ask(machine, {"backend": "pytorch", "pytorch": {"device_map": "cuda:1"}})
    assert (by_place["uuids"], by_place["usable"]) == ([SECOND], [SECOND])


def test_what_the_scheduler_allots_is_respected(simulated: Any) -> None:
    machine = {**simulated(*THREE), "CUDA_VISIBLE_DEVICES": f"{THIRD},{FIRST}"}
    assert ask(machine, {"backend": "pytorch"})["uuids"] == [THIRD]
    assert ask(machine, {"backend": "pytorch", "gpu": {"devices": [0]}})["uuids"] == [FIRST]
    refused = ask(machine, {"backend": "pytorch", "gpu": {"devices": [1]}})
    assert refused["error"].startswith("gpu.devices: no GPU is named so")
    assert refused["error"].endswith("(found 1)")


def test_a_card_is_told_to_the_engine_by_number(simulated: Any) -> None:
    """Engines read what they find there as numbers, and end where it is a UUID."""
    machine = simulated(*THREE)
    by_number = {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    named = ask(machine, {"backend": "pytorch", "gpu": {"devices": [2, FIRST]}})
    assert named["environment"] == by_number
    for unnamed in ({"backend": "pytorch"}, {"backend": "openai"}):
        assert ask(machine, unnamed)["environment"] == {}
    variables = {**machine, "CUDA_VISIBLE_DEVICES": f"{THIRD},{FIRST}"}
    assert ask(variables, {"backend": "openai"})["environment"] == by_number
    numbered = {**machine, "CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert ask(numbered, {"backend": "openai"})["environment"] == {}


OWN = """
import json, os
from llenergymeasure.machine.gpus.allotment import number_own_cards
number_own_cards()
print(json.dumps(os.environ.get("CUDA_VISIBLE_DEVICES")))
"""


@pytest.mark.parametrize(
    ("outside", "inside"), [(f"{SECOND},{FIRST}", "1,0"), ("1", "1"), ("MIG-a", "MIG-a"), ("", "")]
)
def test_an_engine_alone_in_a_container_counts_the_cards_it_sees(
    simulated: Any, outside: str, inside: str
) -> None:
    """Docker's container is given them by UUID; with the meter outside nobody else is in it."""
    machine = {**simulated(*THREE[:2]), "CUDA_VISIBLE_DEVICES": outside}
    assert run_json(OWN, machine, module=allotment.__name__) == inside


def test_a_number_is_that_of_the_place_on_the_bus(simulated: Any) -> None:
    last, first = (
        sim.Device(uuid=uuid, keys={"pci": f"00000000:{bus}:00.0"})
        for uuid, bus in ((SECOND, "9B"), (FIRST, "1A"))
    )
    named = ask(simulated(last, first), {"backend": "pytorch", "gpu": {"devices": [SECOND]}})
    assert named["environment"]["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_card_next_to_a_partitioned_one_is_told_by_uuid(simulated: Any) -> None:
    complete_card, sliced_card = sim.Device(uuid=FIRST), sim.Device(uuid=SECOND, keys={"mig": True})
    machine = simulated(sliced_card, complete_card)
    named = ask(machine, {"backend": "pytorch", "gpu": {"devices": [FIRST]}})
    assert named["environment"] == {"CUDA_VISIBLE_DEVICES": FIRST}


def test_a_study_for_the_cpu_asks_no_driver(simulated: Any) -> None:
    machine = simulated(*THREE)
    on_cpu = {"backend": "pytorch", "pytorch": {"device_map": "cpu"}}
    assert ask(machine, on_cpu, limit_s=0.001)["uuids"] == []


def test_a_machine_without_a_driver_has_none() -> None:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        assert fetch_allotment({"backend": "pytorch"}) == Allotment()
    else:
        pytest.skip("this machine has an NVIDIA driver")


def test_a_driver_that_hangs_keeps_nobody_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, doctor and the launcher of a container asked it themselves; it is asked once."""
    source = tmp_path / "hangs.c"
    source.write_text("#include <unistd.h>\nint nvmlInitWithFlags(int f) { for (;;) pause(); }\n")
    library = tmp_path / "libnvidia-ml.so.1"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the driver that hangs is built")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    code = (
        "from llenergymeasure.machine.gpus import allotment\n"
        "from llenergymeasure.config.experiment import ExperimentConfig\n"
        "from llenergymeasure.cli import doctor_machine\n"
        "from llenergymeasure.containers.container_checks import visible_uuids\n"
        "from llenergymeasure.run.preflight.forecast import Forecast\n"
        "allotment.fetch_allotment.__defaults__ = (0.5,)\n"
        "print(*(tuple(each) for each in doctor_machine.gpus()), sep='\\n')\n"
        "allotment.fetch_allotment.__defaults__ = (1000.0,)\n"
        "config = ExperimentConfig(model='tiny-llama', backend='pytorch')\n"
        "print(Forecast().facts(config).device)\n"
        "visible_uuids()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    finding, device = result.stdout.splitlines()
    assert "'wrong', 'the GPUs cannot be listed: the driver did not answer within 0.5 s" in finding
    assert "see whether nvidia-smi does" in finding
    assert device == "its GPU's speed"
    assert result.stderr.splitlines()[-1].startswith(
        "llenergymeasure.machine.gpus.allotment.GpuAllotmentError: the GPUs cannot be listed"
    )
