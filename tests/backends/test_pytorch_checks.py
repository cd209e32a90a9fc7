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


def on(monkeypatch: pytest.MonkeyPatch, *gpus: tuple[int, int], lacking: str | None = None) -> None:
    """Be on a machine with these GPUs, and with every package but one."""
    monkeypatch.setattr(checks, "_compute_capabilities", lambda _config: list(gpus))
    monkeypatch.setattr(checks, "why_no_cuda", lambda: None)
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == lacking else 1)


FOUR_BITS, EIGHT_BITS = ({"pytorch": {name: True}} for name in ("load_in_4bit", "load_in_8bit"))
RANDOM = {"model": "Llama-3.1-8B", "weights": "random"}
FLASH = {"attn_implementation": "flash_attention_2"}
COMPILED: dict[str, Any] = {"torch_compile": True}
PROBLEMS: list[tuple[list[tuple[int, int]], str | None, dict[str, Any], dict[str, str]]] = [
    ([], None, {}, {}),
    ([], "torch", {}, {"backend": install_command("pytorch")}),
    ([], None, FOUR_BITS, {"pytorch.load_in_4bit": "NVIDIA GPU"}),
    ([], None, EIGHT_BITS, {"pytorch.load_in_8bit": "NVIDIA GPU"}),
    ([HOPPER], "bitsandbytes", EIGHT_BITS, {"pytorch.load_in_8bit": "pip install bitsandbytes"}),
    ([HOPPER], None, FOUR_BITS, {}),
    ([HOPPER], None, {**RANDOM, **FOUR_BITS}, {"pytorch.load_in_4bit": "has none"}),
    ([TURING], None, {"precision": "bf16"}, {"precision": "7.5"}),
    ([TURING], None, {"precision": "fp16"}, {}),
    ([HOPPER], None, {"precision": "bf16"}, {}),
    ([HOPPER], "flash_attn", {"pytorch": FLASH}, {"pytorch.attn_implementation": "flash_attn"}),
    ([], None, {"pytorch": FLASH}, {"pytorch.attn_implementation": "NVIDIA GPU"}),
    ([], None, {"pytorch": {"device_map": "cuda:0"}}, {"pytorch.device_map": "0 are visible"}),
    ([HOPPER], None, {"pytorch": {"device_map": "cuda:0"}}, {}),
    ([HOPPER], None, {"pytorch": {"device_map": "cuda:1"}}, {"pytorch.device_map": "1 are"}),
    (
        [],
        None,
        {**RANDOM, "pytorch": {"tensor_parallel_size": 2}},
        {"pytorch.tensor_parallel_size": "has none"},
    ),
    (
        [],
        None,
        {"pytorch": {"tensor_parallel_size": 2, "num_processes": 2}},
        {"pytorch.tensor_parallel_size": "set one"},
    ),
    ([], None, {"pytorch": COMPILED}, {"pytorch.torch_compile": "g++"}),
    ([], None, {"pytorch": COMPILED | {"torch_compile_backend": "aot_eager"}}, {}),
    ([], None, {"lora": {"adapter_path": "/dev"}}, {"lora.adapter_path": "adapter_config.json"}),
    (
        [],
        None,
        {"passthrough_kwargs": {"max_new_tokens": 3, "eos_token_id": 1, "typical_p": 0.9}},
        {
            "passthrough_kwargs.max_new_tokens": "max_output_tokens",
            "passthrough_kwargs.eos_token_id": "",
        },
    ),
]
"""The GPUs, a package that is not installed, the study, and what is said of it by key."""


@pytest.mark.parametrize(
    ("gpus", "lacking", "study", "expected"),
    PROBLEMS,
    ids=[f"{study} on {gpus} without {lacking}" for gpus, lacking, study, _ in PROBLEMS],
)
def test_what_cannot_run_here_is_said_beforehand(
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[tuple[int, int]],
    lacking: str | None,
    study: dict[str, Any],
    expected: dict[str, str],
) -> None:
    on(monkeypatch, *gpus, lacking=lacking)
    monkeypatch.setenv("PATH", "")  # and no compiler
    monkeypatch.delenv("CXX", raising=False)
    found = problems(**study)
    assert set(found) == set(expected)
    assert all(says in found[key] for key, says in expected.items())


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
    on(monkeypatch)
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
