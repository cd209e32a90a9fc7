import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llenergymeasure.backends import registry
from llenergymeasure.backends.cpu_threads import choose_threads, own_cores
from llenergymeasure.backends.pytorch import checks
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.installation import install_command
from nvml_sim import sim
from support.forks import run_forked
from support.recording import card_environment, uuid

HOPPER, TURING = (9, 0), (7, 5)


def problems(**values: Any) -> dict[str | None, str]:
    config = ExperimentConfig.model_validate({"model": "tiny-llama", **values})
    return {problem.key: problem.message for problem in registry.get("pytorch").problems(config)}


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_compute_capabilities", lambda _config: [])


def on(monkeypatch: pytest.MonkeyPatch, *gpus: tuple[int, int]) -> None:
    monkeypatch.setattr(checks, "_compute_capabilities", lambda _config: list(gpus))
    monkeypatch.setattr(checks, "why_no_cuda", lambda: None)


def test_the_default_has_none() -> None:
    assert problems() == {}


@pytest.mark.parametrize("device_map", [None, "auto", "cuda", "cuda:0", "balanced"])
def test_a_torch_that_cannot_use_the_gpu_beside_it(
    monkeypatch: pytest.MonkeyPatch, device_map: str | None
) -> None:
    on(monkeypatch, HOPPER)
    monkeypatch.setattr(checks, "why_no_cuda", lambda: "2.9 is built for CUDA 13.0")
    settings = {} if device_map is None else {"pytorch": {"device_map": device_map}}
    message = problems(**settings)["backend"]
    assert "compute on the CPU" in message
    assert "2.9 is built for CUDA 13.0" in message
    assert "pytorch.device_map: cpu" in message
    assert problems(pytorch={"device_map": "cpu"}) == {}


def test_older_transformers_generate_batches_and_serve_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "version", lambda _name: "5.17.0")
    assert problems() == {}
    serving = {"arrivals": "closed", "concurrency": 2}
    for settings in ({"serving": serving}, {"pytorch": {"tensor_parallel_size": 2}}):
        message = problems(**settings)["backend"]
        assert "transformers 5.18 or newer" in message
        assert install_command("pytorch") in message
    monkeypatch.setattr(checks, "version", lambda _name: "5.18.0")
    assert problems(serving=serving) == {}

    def unnamed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", unnamed)
    assert problems(serving=serving) == {}


class FakeTorch:
    """A PyTorch by what it says of itself."""

    def __init__(self, cuda: str | None, works: bool) -> None:
        self.__version__ = "2.9"
        self.version = SimpleNamespace(cuda=cuda)
        self.cuda = SimpleNamespace(is_available=lambda: works)


@pytest.mark.parametrize(
    ("torch", "reason"),
    [
        (FakeTorch("13.0", works=True), None),
        (FakeTorch(None, works=False), "2.9 is built without CUDA"),
        (
            FakeTorch("13.0", works=False),
            "2.9 is built for CUDA 13.0, and the driver runs CUDA up to 12.4",
        ),
    ],
)
def test_why_torch_cannot_use_a_gpu(
    monkeypatch: pytest.MonkeyPatch, torch: FakeTorch, reason: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(checks, "cuda_driver_version", lambda: "12.4")
    monkeypatch.setattr(checks, "find_spec", lambda _: 1)
    assert checks.why_no_cuda() == reason


@pytest.mark.parametrize("name", ["load_in_4bit", "load_in_8bit"])
def test_quantisation_needs_gpu_and_package(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert "NVIDIA GPU" in problems(pytorch={name: True})[f"pytorch.{name}"]
    on(monkeypatch, HOPPER)
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "bitsandbytes" else 1)
    assert "pip install bitsandbytes" in problems(pytorch={name: True})[f"pytorch.{name}"]
    monkeypatch.setattr(checks, "find_spec", lambda _: 1)
    assert problems(pytorch={name: True}) == {}


def test_quantising_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, HOPPER)
    messages = problems(model="Llama-3.1-8B", weights="random", pytorch={"load_in_4bit": True})
    assert "has none" in messages["pytorch.load_in_4bit"]


def test_bf16_on_an_old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, TURING)
    assert "7.5" in problems(precision="bf16")["precision"]
    assert problems(precision="fp16") == {}
    on(monkeypatch, HOPPER)
    assert problems(precision="bf16") == {}


def test_flash_attention_without_its_package() -> None:
    messages = problems(pytorch={"attn_implementation": "flash_attention_2"})
    assert "pytorch.attn_implementation" in messages


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pytorch.device_map" in problems(pytorch={"device_map": "cuda:0"})
    on(monkeypatch, HOPPER)
    assert problems(pytorch={"device_map": "cuda:0"}) == {}
    assert "pytorch.device_map" in problems(pytorch={"device_map": "cuda:1"})


def test_slices_need_weights_and_go_alone() -> None:
    messages = problems(model="Llama-3.1-8B", weights="random", pytorch={"tensor_parallel_size": 2})
    assert "has none" in messages["pytorch.tensor_parallel_size"]
    both = {"tensor_parallel_size": 2, "num_processes": 2}
    assert "set one" in problems(pytorch=both)["pytorch.tensor_parallel_size"]


def test_compiling_for_the_cpu_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "g++" in problems(pytorch={"torch_compile": True})["pytorch.torch_compile"]
    eager = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    assert problems(pytorch=eager) == {}


def test_an_adapter_that_is_not_there(tmp_path: Path) -> None:
    assert "lora.adapter_path" in problems(lora={"adapter_path": str(tmp_path)})


def test_passthrough_keeps_off_what_has_a_name() -> None:
    messages = problems(
        passthrough_kwargs={"max_new_tokens": 3, "eos_token_id": 1, "typical_p": 0.9}
    )
    assert "max_output_tokens" in messages["passthrough_kwargs.max_new_tokens"]
    assert "passthrough_kwargs.eos_token_id" in messages
    assert len(messages) == 2


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == "torch" else 1)
    assert install_command("pytorch") in problems()["backend"]


def test_looking_imports_no_engine() -> None:
    code = (
        "import sys\n"
        "from llenergymeasure.backends import registry\n"
        "from llenergymeasure.config.experiment import ExperimentConfig\n"
        "backend = registry.get('pytorch')\n"
        "backend.problems(ExperimentConfig(model='tiny-llama'))\n"
        "assert backend.versions()['torch']\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_threads() -> None:
    small, large = 4_000_000, 8_000_000_000
    cores = own_cores()
    assert 1 <= cores <= len(os.sched_getaffinity(0))
    assert choose_threads(small, requested=None, on_gpu=False) == 1
    assert choose_threads(large, requested=None, on_gpu=False) == cores
    assert choose_threads(None, requested=None, on_gpu=False) == cores
    assert choose_threads(large, requested=None, on_gpu=True) == 1
    assert choose_threads(small, requested=3, on_gpu=True) == 3
    assert choose_threads(large, requested=None, on_gpu=False, processes=10_000) == 1


@pytest.mark.parametrize(
    ("listed", "devices", "refused"),
    [("0", None, True), ("1", None, False), (None, [1], False), (None, [0], True)],
)
def test_bfloat16_is_looked_for_on_the_card_that_is_meant(
    tmp_path: Path, listed: str | None, devices: list[int] | None, refused: bool
) -> None:
    cards = [
        sim.Device(uuid=uuid(1), keys={"compute_capability": [6, 1], "pci": "00000000:01:00.0"}),
        sim.Device(uuid=uuid(2), keys={"compute_capability": [8, 0], "pci": "00000000:02:00.0"}),
    ]
    more = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if listed is not None:
        more["CUDA_VISIBLE_DEVICES"] = listed
    study = {"model": "tiny-llama", "gpu": None if devices is None else {"devices": devices}}
    source = (
        "from llenergymeasure.backends.pytorch import checks\n"
        "from llenergymeasure.config.experiment import ExperimentConfig\n"
        f"config = ExperimentConfig.model_validate({study!r})\n"
        "print([each.message for each in checks.find_problems(config)])"
    )
    imported = ("llenergymeasure.backends.pytorch.checks", "pynvml")
    process = run_forked(source, card_environment(tmp_path, cards, **more), modules=imported)
    assert process.returncode == 0, process.stderr
    assert ("has no bfloat16" in process.stdout) == refused
