"""Everything that is wrong, at once: on this machine's CPU, and on simulated cards."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure import files
from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.run_spec import RunSpec
from llenergymeasure.plan import make_plan
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.run.measure_script import read_spec
from llenergymeasure.run.preflight import checks, model_checks
from llenergymeasure.run.preflight.checks import Preflight, check_unchanged, preflight
from llenergymeasure.workload.load_study import study_from_mapping
from llenergymeasure.workload.models.known import known_architecture
from llenergymeasure.workload.models.resolve import ModelSource
from llenergymeasure.workload.models.tiny import tiny_llama_folder
from nvml_sim import sim
from support.forks import run_forked

UUID = "GPU-51b0cafe-0000-4000-8000-000000000000"
GIB = 2**30

LOOK = """
import json, os, sys
from pathlib import Path
from llenergymeasure.backends import registry
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.run.preflight.checks import as_dict, preflight
told = json.loads(sys.argv[1])
config = ExperimentConfig.model_validate(told["config"])
backend, run_pid = registry.get(config.backend), told["run_pid"] or os.getpid()
found = preflight(config, backend, Path(told["folder"]), run_pid=run_pid)
problems = {"errors": found.errors, "warnings": found.warnings}
plain = {name: [as_dict(problem) for problem in problems[name]] for name in problems}
print(json.dumps({**plain, "cards": [card.uuid for card in found.cards]}))
"""
IMPORTED = (
    "llenergymeasure.run.preflight.checks",
    "llenergymeasure.backends.pytorch.checks",
    "numpy.random",
    "pynvml",
)


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried on the CPU is tried as on a machine without a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def look(tmp_path: Path, library: Path) -> Any:  # noqa: ARG001 - builds it
    """Looks at the cards given, in a process that sees them, and returns what it found."""

    def run(
        *cards: sim.Device,
        config: dict[str, Any] | None = None,
        visible: str | None = None,
        run_pid: int | None = None,
        state: str = "",
        computes: bool = True,
    ) -> dict[str, Any]:
        trace = sim.Trace(cards).write(tmp_path)
        (tmp_path / "state").write_text(state)
        variables = sim.environment(trace, state=tmp_path / "state", computes=computes)
        variables.pop("CUDA_VISIBLE_DEVICES", None)
        if visible is not None:
            variables["CUDA_VISIBLE_DEVICES"] = visible
        arguments = {
            "config": {"model": "tiny-llama", **(config or {})},
            "folder": str(tmp_path / "run"),
            "run_pid": run_pid,
        }
        process = run_forked(LOOK, variables, json.dumps(arguments), modules=IMPORTED)
        assert process.returncode == 0, process.stderr
        result: dict[str, Any] = json.loads(process.stdout)
        return result

    return run


def messages(found: list[dict[str, Any]]) -> str:
    return "\n".join(problem["message"] for problem in found)


def on_cpu(folder: Path, **config: Any) -> Preflight:
    experiment = ExperimentConfig.model_validate({"model": "tiny-llama", **config})
    return preflight(experiment, registry.get(experiment.backend), folder, run_pid=os.getpid())


def test_a_cpu_without_troubles_is_quiet(tmp_path: Path) -> None:
    result = on_cpu(tmp_path / "results" / "run")
    assert (result.errors, result.warnings) == ((), ())
    assert result.workload is not None
    assert len(result.workload.requests) == 100
    assert result.cards == ()
    assert list((tmp_path / "results" / "run").iterdir()) == []


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    result = on_cpu(
        tmp_path / "file" / "run",
        model="nobody/nothing",
        dataset=str(tmp_path / "missing.jsonl"),
        lora={"adapter_path": str(tmp_path / "nowhere")},
        pytorch={"load_in_4bit": True},
        gpu={"power_limit_w": 300},
    )
    text = [str(error) for error in result.errors]
    for part in (
        "pytorch.load_in_4bit: needs an NVIDIA GPU",
        "lora.adapter_path",
        "model: model nobody/nothing",
        "HF_HUB_OFFLINE forbids",
        "missing.jsonl",
        "gpu: needs a GPU",
        "results cannot be written",
    ):
        assert any(part in problem for problem in text), part
    assert len(set(text)) == len(text)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        pytest.param(
            {"model": "llama-3.1-70b", "precision": "fp32", "n": 2},
            ["needs at least 282.6", "GB of weights and", "this machine's memory is"],
            id="memory",
        ),
        pytest.param(
            {"model": "gpt2", "n": 1, "max_output_tokens": 1000},
            ["take up to 1512 tokens together, and this model is made for 1024"],
            id="positions",
        ),
    ],
)
def test_a_model_too_large_for_the_machine_or_its_positions_is_refused(
    tmp_path: Path, config: dict[str, Any], parts: list[str]
) -> None:
    (error,) = on_cpu(tmp_path, weights="random", **config).errors
    for part in parts:
        assert part in str(error)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 8388608\n"


def own_model(folder: Path) -> Path:
    """Return a folder with a model of the study's own, without weights."""
    place = shutil.copytree(tiny_llama_folder(), folder / "model")
    for path in place.glob("*.safetensors*"):
        path.unlink()
    return place


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("model.safetensors", {}),
        ("config.json", {}),
        ("tokenizer.json", {"dataset": "prompts.jsonl"}),
        ("prompts.jsonl", {"dataset": "prompts.jsonl"}),
        ("trace.csv", {"serving": {"arrivals": "trace", "trace": "trace.csv"}}),
    ],
)
def test_a_file_that_git_left_as_a_pointer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any]
) -> None:
    folder = own_model(tmp_path)
    monkeypatch.chdir(folder)
    (folder / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    (folder / name).write_text(POINTER)
    errors = on_cpu(tmp_path / "run", model=str(folder), **settings).errors
    text = " ".join(map(str, errors))
    assert f"{name}" in text
    assert "holds a pointer of Git LFS, not the file itself; run git lfs pull" in text


def test_shards_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = own_model(tmp_path)
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "2.safetensors").write_bytes(b"\0" * 2000)
    (error,) = on_cpu(tmp_path / "run", model=str(folder)).errors
    assert error.file == folder / "model.safetensors.index.json"
    assert "2 of the 3 files it names are not there: 1.safetensors, 3.safetensors" in str(error)


def test_a_cache_with_the_index_alone_has_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted download."""
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    here = {index.name: index}
    monkeypatch.setattr(model_checks, "cached_file", lambda _model, name, _revision: here.get(name))
    source = ModelSource("owner/name", "owner/name", False, {}, known_architecture("gpt2"))
    config = ExperimentConfig.model_validate({"model": "owner/name"})
    assert not model_checks.are_weights_local(config, source)
    (error,) = model_checks.check_model(config, source, None, ())
    assert "its weights are not in the local cache of the hub" in str(error)
    here["1.safetensors"] = index
    assert model_checks.are_weights_local(config, source)


def test_missing_packages_are_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "transformers", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("llenergymeasure.backends.pytorch.checks.find_spec", sys.modules.get)
    (error,) = on_cpu(tmp_path).errors
    assert "torch and transformers not installed" in str(error)


LIMITED = f"1 {UUID} power_limit_mw 300000 0\n"
LIMIT = {"gpu": {"power_limit_w": 300}}
POWER_LIMIT = {"power_limit_w": {"default": 400, "min": 100, "max": 500}}
ON_CPU = {"pytorch": {"device_map": "cpu"}}
LARGE = {"model": "llama-3.1-8b", "weights": "random", "n": 4}
MANY = {**LARGE, "n": 200}
BATCHED = {**MANY, "pytorch": {"batch_size": 200}}


NOT_AS_DELIVERED = {
    "persistence_mode": False,
    "mig": True,
    "ecc": {"current": False, "pending": True},
    "throttle": [[0, 0x40 | 0x4]],
}
BUSY = {"processes": [{"pid": 1}], "persistence_mode": False}


def of_gib(total: int, **more: int) -> dict[str, Any]:
    return {"memory": {"total_bytes": total * GIB, **more}}


@pytest.mark.parametrize(
    ("keys", "asked", "cards"),
    [
        ({}, {}, [UUID]),
        (POWER_LIMIT, {"state": LIMITED, "config": LIMIT}, [UUID]),
        (of_gib(24), {"config": MANY}, [UUID]),
        (BUSY, {"config": ON_CPU}, []),
        ({}, {"computes": False, "visible": ""}, []),
        ({}, {"computes": False, "config": ON_CPU}, []),
    ],
    ids=["plain", "limit asked for", "cache of one", "on the CPU", "hidden", "torch on the CPU"],
)
def test_a_card_as_it_should_be_is_quiet(look: Any, keys: Any, asked: Any, cards: Any) -> None:
    result = look(sim.Device(keys=keys), **asked)
    assert result == {"errors": [], "warnings": [], "cards": cards}


TOO_LARGE = ["needs at least 16.144 GB", "the memory of GPU Simulated GPU is 8.590 GB"]
TORCH = ["NVML sees a GPU here", "would compute on the CPU", "set pytorch.device_map: cpu"]
HIDDEN = ["CUDA_VISIBLE_DEVICES or the scheduler hides them all"]


@pytest.mark.parametrize(
    ("keys", "asked", "parts"),
    [
        (of_gib(8), {"config": LARGE}, TOO_LARGE),
        (of_gib(24), {"config": BATCHED}, ["for 200 sequences of up to 640 tokens"]),
        ({}, {"config": LIMIT, "visible": ""}, HIDDEN),
        ({"fail_after_s": -1}, {}, ["GPU"]),
        ({}, {"computes": False}, TORCH),
    ],
    ids=["model too large", "cache too large", "hidden", "silent", "torch without CUDA"],
)
def test_a_card_that_cannot_be_used_is_an_error(
    look: Any, keys: Any, asked: Any, parts: list[str]
) -> None:
    (error,) = look(sim.Device(keys=keys), **asked)["errors"]
    for part in parts:
        assert part in error["message"]


@pytest.mark.parametrize(
    ("keys", "state", "parts"),
    [
        (of_gib(80, used_bytes=20 * GIB), "", ["21.5 GB in use, and no process is named for it"]),
        (
            NOT_AS_DELIVERED,
            "",
            [
                "is partitioned (MIG)",
                "not in persistence mode",
                "slowed down before the run begins: hw_thermal_slowdown",
                "has ECC off",
                "will have ECC on after its next reset",
            ],
        ),
        (
            POWER_LIMIT,
            LIMITED + f"1 {UUID} application_clocks_mhz 2619 1200\n",
            [
                "power limit of 300 W, its default is 400 W",
                "application clocks at 1200 MHz (graphics) and 2619 MHz (memory)",
            ],
        ),
    ],
    ids=["memory of nobody", "not as delivered", "limits"],
)
def test_what_is_unusual_about_a_card_is_a_warning(
    look: Any, keys: Any, state: str, parts: list[str]
) -> None:
    result = look(sim.Device(keys=keys), state=state)
    assert result["errors"] == []
    for part in parts:
        assert part in messages(result["warnings"])


def test_strangers_are_named_and_refused(look: Any) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        card = sim.Device(keys={"processes": [{"pid": other.pid, "used_memory_bytes": GIB}]})
        result = look(card)
        (error,) = result["errors"]
        assert f"is in use by sleep (pid {other.pid})" in error["message"]
        assert look(card, run_pid=os.getpid())["errors"] == []
        server = {"backend": "openai", "openai": {"base_url": "http://127.0.0.1:1/v1"}}
        assert look(card, config=server)["errors"] == []
        other.kill()


def test_what_is_spread_over_cards_may_spill(look: Any) -> None:
    cards = [
        sim.Device(uuid=f"GPU-{name}-card", keys={"memory": {"total_bytes": 6 * GIB}})
        for name in ("first", "second")
    ]
    result = look(*cards, config={**LARGE, "pytorch": {"device_map": "auto"}})
    assert len(result["cards"]) == 2
    assert result["errors"] == []
    assert "what is too much goes to slower memory" in messages(result["warnings"])


@pytest.mark.parametrize(
    "config",
    [
        {"pytorch": {"num_processes": 2}},
        {"pytorch": {"tensor_parallel_size": 2}},
        {"backend": "vllm", "vllm": {"engine": {"pipeline_parallel_size": 2}}},
    ],
)
def test_fewer_cards_than_the_engine_shares_the_work_among_are_named_once(
    look: Any, config: dict[str, Any]
) -> None:
    errors = [problem["message"] for problem in look(sim.Device(), config=config)["errors"]]
    (text,) = (problem for problem in errors if "GPUs" in problem)
    assert text.startswith("needs 2 GPUs, and 1 can be used here")


def test_a_limit_on_addresses_that_would_hang_the_result_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.resource, "getrlimit", lambda _: (500_000 * 1024, -1))
    (error,) = on_cpu(tmp_path).errors
    assert "0.5 GB of addresses (ulimit -v)" in str(error)


def planned(folder: Path, **settings: Any) -> Callable[[], list[str]]:
    """Plan a study; return what tells of its first run what has changed since then."""
    plan = make_plan(study_from_mapping({"model": "tiny-llama", **settings}))
    study = StudyFolder(folder / "study")
    files.write_if_changed(study.plan, plan.to_json_bytes())
    run = plan.runs[0]
    spec = RunSpec.model_validate(read_spec(study.plan, f"{run.experiment}/{run.cycle}"))
    place = study.run(run.experiment, run.cycle)
    return lambda: [str(problem) for problem in check_unchanged(spec, place)]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder of a model's, with weights that are too large to be hashed before each run."""
    (tmp_path / "adapter" / ".cache").mkdir(parents=True)
    (tmp_path / "adapter" / "weights.bin").write_bytes(bytes(2 * 1024 * 1024))
    return tmp_path / "adapter"


def test_a_file_that_has_changed_since_its_id_was_taken_is_another_experiment(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "one"}\n')
    found = planned(tmp_path, dataset=str(data))
    assert found() == []
    data.write_text('{"prompt": "one"}\n')  # newer, and the same
    assert found() == []
    data.write_text('{"prompt": "two"}\n')
    (text,) = found()
    assert text.startswith("what this experiment reads has changed since the study was planned")
    assert text.endswith(f"newer than the plan: {data}")
    data.unlink()
    assert found() == []  # who reads it says so


@pytest.mark.parametrize("by_command", [True, False])
def test_a_server_that_writes_next_to_its_model_is_thought_of(
    tmp_path: Path, by_command: bool
) -> None:
    model = own_model(tmp_path)
    openai: dict[str, Any] = {"base_url": "http://127.0.0.1:9/v1"}
    if by_command:
        openai = {"command": ["serve", "--model", "{model}", "--port", "{port}"]}
    found = planned(tmp_path, model=str(model), weights="random", backend="openai", openai=openai)
    (model / "model.converted").write_text("by the server of the run before")
    (text,) = found()
    assert ("start each of its commands once by hand" in text) is by_command


def test_a_log_that_grows_in_a_models_folder_refuses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: Path
) -> None:
    weights, log = adapter / "weights.bin", adapter / "slurm-17.out"
    log.write_text("planned\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = planned(tmp_path, lora={"adapter_path": str(adapter)})
    log.write_text("planned\nthe first run\n")
    (adapter / ".cache" / "lock").touch()
    assert found() == []
    weights.write_bytes(bytes(3 * 1024 * 1024))
    (text,) = found()
    assert f"newer than the plan: {weights}; logs count too" in text
    assert str(log) in text

    def hashed(path: Path) -> str:
        assert path != weights, "a large file is hashed before each run"
        return sha256(path)

    sha256 = files.sha256
    monkeypatch.setattr(files, "sha256", hashed)
    assert len(found()) == 1


def test_a_file_with_other_rights_alone_is_not_said_to_have_changed(
    tmp_path: Path, adapter: Path
) -> None:
    """What has changed is the adapter; the data set is newer than the plan all the same."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "one"}\n')
    found = planned(tmp_path, dataset=str(data), lora={"adapter_path": str(adapter)})
    (adapter / "weights.bin").write_text("two")
    data.chmod(0o600)
    (text,) = found()
    assert text.startswith("what this experiment reads has changed")  # and no file before that
    assert "weights.bin" in text
