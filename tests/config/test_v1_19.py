"""Studies of the original tool load unchanged and mean what they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llenergymeasure.config.dotted import leaves, value_at
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.study import Study
from llenergymeasure.plan import make_plan
from llenergymeasure.units import BACKENDS
from llenergymeasure.workload.load_study import load_study

FOLDER = Path(__file__).parent / "v1_19"


def study(name: str) -> Study:
    return load_study(FOLDER / f"{name}.yaml")


STUDIES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# Experiments, and what the first one has that does not stand in the file as it is; of the others
# there is one each, as it is written.
EXPECTED: dict[str, tuple[int, dict[str, Any]]] = {
    "single_experiment": (
        1,
        {
            "backend": "pytorch",
            "pytorch": None,
            "n": 100,
            "precision": "bf16",
            "random_seed": 42,
            "max_input_tokens": 512,
            "max_output_tokens": 128,
            "dataset_order": "interleaved",
            "decoder.temperature": 1.0,
            "decoder.top_k": 50,
            "warmup.enabled": True,
            "energy.backend": "auto",
        },
    ),
    "every_shared_field": (1, {"output_dir": None}),
    "synthetic_dataset_defaults": (
        1,
        {"dataset": {"n": 4, "input_len": 512, "output_len": 128, "seed": 42}},
    ),
    "decoder_presets": (4, {"decoder.temperature": 0.0, "decoder.do_sample": False}),
    "preset_with_override": (
        1,
        {"decoder.temperature": 0.8, "decoder.repetition_penalty": 1.1, "decoder.top_k": 50},
    ),
    "baseline_off": (1, {"baseline.duration_seconds": 30.0}),
    "energy_disabled": (1, {"energy.backend": "none"}),
    "energy_backends": (5, {"energy.backend": "auto"}),
    "pytorch_quantised": (3, {"pytorch.load_in_8bit": True}),
    "tensorrt": (3, {"tensorrt.quantization": "int8_sq"}),
    "sweep_models": (18, {"model": "meta-llama/Llama-3.2-1B", "pytorch.batch_size": 1}),
    "scoped_sweep": (2 * 3 * 2 + 2 * 2, {"backend": "pytorch", "pytorch.batch_size": 1}),
    "backend_list": (4, {"backend": "pytorch", "pytorch.batch_size": 4, "vllm": None}),
    "swept_backend_and_experiments": (17, {"model": "gpt2", "backend": "pytorch"}),
    "base_of_others": (1, {"precision": "fp16"}),
    "with_base": (1, {"model": "gpt2", "precision": "bf16", "decoder.temperature": 0.5}),
    "wrong_section_left_out": (1, {"backend": "vllm", "pytorch": None}),
    "anchors": (2, {"pytorch": {"batch_size": 4, "num_beams": 2}}),
}


def settings_of(name: str, backend: str) -> dict[str, Any]:
    """Return the settings that a file writes for an experiment of a backend."""
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    names = set(ExperimentConfig.model_fields) - {*BACKENDS, "output_dir"} | {backend}
    return dict(leaves({key: value for key, value in content.items() if key in names}))


def test_no_file_is_missing() -> None:
    assert set(EXPECTED) <= set(STUDIES)
    assert len(STUDIES) == 26


@pytest.mark.parametrize("name", STUDIES)
def test_loads_as_written_and_plans(name: str) -> None:
    count, others = EXPECTED.get(name, (1, {}))
    loaded = study(name)
    assert len(loaded.experiments) == count
    assert len(loaded.left_out) == (name == "wrong_section_left_out")
    first = loaded.experiments[0].config
    settings = {**settings_of(name, first["backend"]), **others}
    assert {key: value_at(first, key) for key in settings} == settings
    plan = make_plan(loaded)
    assert len(plan.runs) == count * loaded.n_cycles
    assert len({(run.experiment, run.cycle) for run in plan.runs}) == len(plan.runs)


def test_study_of_one_is_named_after_its_file_and_runs_three_cycles() -> None:
    loaded = study("single_experiment")
    assert (loaded.name, loaded.n_cycles) == ("single_experiment", 3)
    assert loaded.execution.cycle_order == "shuffled"


def test_output_dir_is_where_results_go_and_no_part_of_the_experiment() -> None:
    assert study("every_shared_field").results_root == Path("out/first")


def test_presets_stand_for_their_values() -> None:
    decoders = [experiment.model.decoder for experiment in study("decoder_presets").experiments]
    assert [(d.temperature, d.do_sample, d.top_p, d.repetition_penalty) for d in decoders] == [
        (0.0, False, 1.0, 1.0),
        (1.0, True, 0.95, 1.0),
        (0.8, True, 0.9, 1.1),
        (0.3, True, 1.0, 1.0),
    ]


def test_backends_follow_from_the_swept_keys_and_keep_their_settings_apart() -> None:
    loaded = study("scoped_sweep")
    backends = [experiment.model.backend for experiment in loaded.experiments]
    assert backends == ["pytorch"] * 12 + ["vllm"] * 4
    assert all(experiment.model.pytorch is None for experiment in loaded.experiments[12:])
    assert all(experiment.model.vllm is None for experiment in loaded.experiments[:12])
    assert str(loaded.runner("pytorch")) == "docker"
    assert loaded.runner("vllm").image == "registry.example.org/vllm:v1"


def test_explicit_experiments_follow_the_sweep_and_merge_over_the_shared() -> None:
    last = study("swept_backend_and_experiments").experiments[-1]
    assert value_at(last.config, "precision") == "fp32"
    assert value_at(last.config, "warmup.n_warmup") == 3
    assert value_at(last.config, "pytorch.attn_implementation") == "flash_attention_2"


def test_study_keys_of_a_base_are_ignored() -> None:
    loaded = study("with_base")
    assert (loaded.name, loaded.n_cycles, loaded.swept_keys) == ("with_base", 3, ())
