"""``llem doctor`` is right about what it says."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.cli.doctor import _check_packages
from nvml_sim import sim
from support.recording import card_environment, uuid
from support.studies import llem

pytestmark = pytest.mark.slow


def _found(folder: Path, variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    result = llem(folder, "doctor", "--json", variables=variables)
    document = json.loads(result.stdout)
    assert result.returncode == (0 if document["ok"] else 1)
    assert document["ok"] == all(finding["state"] != "wrong" for finding in document["findings"])
    return {finding["name"]: finding for finding in document["findings"]}


def test_it_is_right_about_this_machine(tmp_path: Path) -> None:
    secret = "hf_0123456789abcdef"
    findings = _found(tmp_path, {"HF_TOKEN": secret, "XDG_CONFIG_HOME": str(tmp_path / "xdg")})
    assert importlib.metadata.version("torch") in findings["pytorch"]["detail"]
    gpu = Path("/proc/driver/nvidia/version").exists()
    assert (findings["pytorch"]["state"] == "ok") == (
        not gpu or "CUDA works" in findings["pytorch"]["detail"]
    )
    for name in ("vllm", "sglang"):
        is_installed = importlib.util.find_spec(name) is not None
        assert (findings[name]["state"] != "absent") == is_installed
    assert (findings["Apptainer"]["state"] == "ok") == (shutil.which("apptainer") is not None)
    docker = shutil.which("docker")
    if docker is None and shutil.which("podman") is None:
        assert findings["Docker"]["state"] == "absent"
    elif docker is not None:
        works = subprocess.run([docker, "ps"], capture_output=True, check=False).returncode == 0
        assert (findings["Docker"]["state"] == "ok") == works
        assert works or "does not answer" in findings["Docker"]["detail"]
    assert (findings["SLURM"]["state"] != "absent") == (shutil.which("sbatch") is not None)
    assert (findings["nvml"]["state"] == "ok") == gpu
    counters = list(Path("/sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    assert (findings["rapl"]["state"] == "ok") == any(os.access(one, os.R_OK) for one in counters)
    assert findings["results"]["detail"].startswith(str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()
    assert findings["hub token"]["detail"] == "in HF_TOKEN"
    assert secret not in json.dumps(findings)
    for finding in findings.values():
        assert finding["state"] in ("ok", "absent", "wrong")


@pytest.mark.system
def test_it_sees_cards_and_what_is_wrong(tmp_path: Path) -> None:
    busy = sim.Device(
        power_w=[(0.0, 100.0)],
        uuid=uuid(1),
        keys={"processes": [{"pid": 4711}], "power_limit_w": {"default": 700, "max": 700}},
    )
    state = tmp_path / "state"
    state.write_text(f"1 {uuid(1)} power_limit_mw 400000 0\n")
    silent = sim.Device(
        uuid=uuid(2), keys={"not_supported": ["nvmlDeviceGetComputeRunningProcesses"]}
    )
    cards = [sim.Device(), busy, silent]
    variables = card_environment(tmp_path, cards, NVML_SIM_STATE=str(state))
    wrong = tmp_path / "xdg" / "llenergymeasure" / "config.yaml"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("runner: {}\n")
    file = tmp_path / "file"
    file.write_text("")
    variables |= {
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "LLEM_OUTPUT_DIR": str(file / "results"),
        "XDG_CACHE_HOME": str(file / "cache"),
        "LLEM_DOCKER": "no-such-docker",
        "HF_HUB_OFFLINE": "1",
    }
    findings = _found(tmp_path, variables)
    assert findings["NVIDIA driver"]["state"] == "ok"
    assert findings["GPU 1"]["state"] == "wrong"
    assert "4711" in findings["GPU 1"]["detail"]
    assert "does not say who uses it: Not Supported" in findings["GPU 2"]["detail"]
    assert findings["GPU 0 settings"]["state"] == "ok"
    assert "as delivered: power limit" in findings["GPU 0 settings"]["detail"]
    assert findings["GPU 1 settings"]["state"] == "absent"
    assert "power limit of 400 W, its default is 700 W" in findings["GPU 1 settings"]["detail"]
    assert findings["nvml"]["state"] == "ok"
    assert "measured" in findings["nvml"]["detail"]
    assert "a measurement" not in findings
    assert findings["your settings"]["state"] == "wrong"
    assert findings["Snakemake's cache"]["state"] == "wrong"
    assert "XDG_CACHE_HOME" in findings["Snakemake's cache"]["remedy"]
    assert findings["Docker"]["state"] == "absent"
    assert "HF_HUB_OFFLINE" in findings["hub"]["detail"]


@pytest.mark.system
def test_a_torch_that_cannot_use_the_card_is_not_ticked_off(tmp_path: Path) -> None:
    if importlib.util.find_spec("torch") is None or Path("/dev/nvidiactl").exists():
        pytest.skip("needs a PyTorch, and no GPU")
    findings = _found(tmp_path, card_environment(tmp_path, [sim.Device()]))
    assert findings["pytorch"]["state"] == "wrong"
    assert "NVML sees a GPU" in findings["pytorch"]["detail"]
    assert "refused" in findings["pytorch"]["remedy"]
    hidden = card_environment(tmp_path, [sim.Device()], CUDA_VISIBLE_DEVICES="")
    assert _found(tmp_path, hidden)["pytorch"]["state"] == "ok"


def test_a_snakemake_that_a_run_refuses_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "9.3.1")
    finding = _check_packages()
    assert finding.state == "wrong"
    assert "snakemake 9.3.1, and the workflow needs 9.27 or newer" in finding.detail
