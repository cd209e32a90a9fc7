"""Studies of the original tool load unchanged and mean what they say."""

from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.dotted import value_at
from llenergymeasure.config.protocol import resolve_protocol
from llenergymeasure.config.study import Study
from llenergymeasure.plan import make_plan
from llenergymeasure.workload.load_study import load_study

FOLDER = Path(__file__).parent / "v1_19"


def study(name: str) -> Study:
    return load_study(FOLDER / f"{name}.yaml")


# File -> experiments, left out, and dotted settings of its first experiment.
EXPECTED: dict[str, tuple[int, int, dict[str, Any]]] = {
    "single_experiment": (
        1,
        0,
        {
            "model": "gpt2",
            "backend": "pytorch",
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
            "pytorch": None,
        },
    ),
    "every_shared_field": (
        1,
        0,
        {
            "n": 50,
            "dataset": "aienergyscore",
            "dataset_order": "grouped",
            "precision": "fp16",
            "random_seed": 7,
            "max_input_tokens": 256,
            "max_output_tokens": 64,
            "passthrough_kwargs": {"low_cpu_mem_usage": True},
            "output_dir": None,
        },
    ),
    "synthetic_dataset": (
        1,
        0,
        {"dataset": {"n": 20, "input_len": 128, "output_len": 32, "seed": 1}},
    ),
    "synthetic_dataset_defaults": (
        1,
        0,
        {"dataset": {"n": 4, "input_len": 512, "output_len": 128, "seed": 42}},
    ),
    "decoder_values": (
        1,
        0,
        {
            "decoder": {
                "temperature": 0.7,
                "do_sample": True,
                "top_k": 40,
                "top_p": 0.9,
                "repetition_penalty": 1.2,
                "min_p": 0.05,
                "min_new_tokens": 8,
            }
        },
    ),
    "decoder_presets": (4, 0, {"decoder.temperature": 0.0, "decoder.do_sample": False}),
    "preset_with_override": (
        1,
        0,
        {
            "decoder.temperature": 0.8,
            "decoder.top_p": 0.5,
            "decoder.repetition_penalty": 1.1,
            "decoder.top_k": 50,
        },
    ),
    "warmup": (
        1,
        0,
        {
            "warmup": {
                "enabled": True,
                "n_warmup": 3,
                "thermal_floor_seconds": 30.0,
                "convergence_detection": True,
                "cv_threshold": 0.1,
                "max_prompts": 30,
                "window_size": 4,
                "min_prompts": 6,
            }
        },
    ),
    "baseline_off": (1, 0, {"baseline": {"enabled": False, "duration_seconds": 30.0}}),
    "energy_disabled": (1, 0, {"energy.backend": "none"}),
    "energy_backends": (5, 0, {"energy.backend": "auto"}),
    "lora_hub": (1, 0, {"lora": {"adapter_id": "someone/adapter", "merge_weights": True}}),
    "pytorch_plain": (
        1,
        0,
        {
            "pytorch": {
                "batch_size": 4,
                "attn_implementation": "flash_attention_2",
                "torch_compile": True,
                "torch_compile_mode": "reduce-overhead",
                "torch_compile_backend": "inductor",
                "use_cache": True,
                "cache_implementation": "static",
                "num_beams": 2,
                "early_stopping": True,
                "length_penalty": 0.8,
                "no_repeat_ngram_size": 3,
                "device_map": "auto",
                "max_memory": {"0": "20GiB", "cpu": "60GiB"},
                "revision": "main",
                "trust_remote_code": False,
                "num_processes": 1,
            }
        },
    ),
    "pytorch_quantised": (3, 0, {"pytorch.load_in_8bit": True}),
    "vllm_engine": (
        1,
        0,
        {
            "backend": "vllm",
            "vllm.engine.swap_space": 4.0,
            "vllm.engine.gpu_memory_utilization": 0.9,
            "vllm.engine.block_size": 16,
            "vllm.engine.quantization": "awq",
        },
    ),
    "vllm_rare": (
        1,
        0,
        {
            "vllm.engine.offload_params": ["gate_up_proj", "down_proj"],
            "vllm.engine.compilation_config": {"level": 3},
            "vllm.engine.attention": {"backend": "FLASH_ATTN", "flash_attn_version": 3},
            "vllm.sampling.ignore_eos": True,
        },
    ),
    "vllm_beam": (1, 0, {"vllm.beam_search.beam_width": 4}),
    "tensorrt": (
        3,
        0,
        {"backend": "tensorrt", "tensorrt.max_batch_size": 8, "tensorrt.quantization": "int8_sq"},
    ),
    "sweep_models": (18, 0, {"model": "meta-llama/Llama-3.2-1B", "pytorch.batch_size": 1}),
    "scoped_sweep": (2 * 3 * 2 + 2 * 2, 0, {"backend": "pytorch", "pytorch.batch_size": 1}),
    "backend_list": (4, 0, {"backend": "pytorch", "pytorch.batch_size": 4, "vllm": None}),
    "swept_backend_and_experiments": (17, 0, {"model": "gpt2", "warmup.n_warmup": 3}),
    "base_of_others": (1, 0, {"n": 30, "precision": "fp16"}),
    "with_base": (
        1,
        0,
        {"model": "gpt2", "n": 40, "precision": "bf16", "decoder.temperature": 0.5}
        | {"decoder.top_k": 20},
    ),
    "wrong_section_left_out": (1, 1, {"backend": "vllm", "pytorch": None}),
    "anchors": (2, 0, {"pytorch": {"batch_size": 4, "num_beams": 2}}),
}


def test_every_file_is_expected_and_there_are_enough() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXPECTED)
    assert len(EXPECTED) >= 20


@pytest.mark.parametrize("name", EXPECTED)
def test_loads_and_plans(name: str) -> None:
    count, left_out, settings = EXPECTED[name]
    loaded = study(name)
    assert len(loaded.experiments) == count
    assert len(loaded.left_out) == left_out
    first = loaded.experiments[0].config
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


def test_what_the_file_sets_wins_over_the_protocol() -> None:
    model = study("warmup").experiments[0].model
    for measured in (True, False):
        settings = resolve_protocol(model, measured)
        assert (settings.warmup_n, settings.warmup_floor_s) == (3, 30.0)
        assert (settings.warmup_convergence, settings.warmup_cv_threshold) == (True, 0.1)
        assert (settings.warmup_max_prompts, settings.warmup_min_prompts) == (30, 6)
    off = resolve_protocol(study("baseline_off").experiments[0].model, measured=True)
    assert (off.idle_before_s, off.idle_after_s) == (0.0, 0.0)


def test_backends_follow_from_the_swept_keys_and_keep_their_settings_apart() -> None:
    loaded = study("scoped_sweep")
    backends = [experiment.model.backend for experiment in loaded.experiments]
    assert backends == ["pytorch"] * 12 + ["vllm"] * 4
    assert all(experiment.model.pytorch is None for experiment in loaded.experiments[12:])
    assert all(experiment.model.vllm is None for experiment in loaded.experiments[:12])
    assert str(loaded.runner("pytorch")) == "docker"
    assert loaded.runner("vllm").image == "registry.example.org/vllm:v1"


def test_shared_sections_apply_to_their_own_backend() -> None:
    by_backend = {
        experiment.model.backend: experiment.config
        for experiment in study("backend_list").experiments
    }
    assert by_backend["vllm"]["vllm"] == {"engine": {"max_num_seqs": 32}}
    assert "vllm" not in by_backend["pytorch"]


def test_gaps_and_execution_are_honoured() -> None:
    plan = make_plan(study("sweep_models"))
    gaps = [run.gap_s for run in plan.runs]
    assert gaps[0] == 0
    assert gaps[1:18] == [5.0] * 17
    assert gaps[18] == 15.0
    skipping = make_plan(study("swept_backend_and_experiments"))
    assert skipping.execution["skip_preflight"]


def test_explicit_experiments_follow_the_sweep_and_merge_over_the_shared() -> None:
    last = study("swept_backend_and_experiments").experiments[-1]
    assert value_at(last.config, "precision") == "fp32"
    assert value_at(last.config, "warmup.n_warmup") == 3
    assert value_at(last.config, "pytorch.attn_implementation") == "flash_attention_2"


def test_study_keys_of_a_base_are_ignored() -> None:
    loaded = study("with_base")
    assert (loaded.name, loaded.n_cycles, loaded.swept_keys) == ("with_base", 3, ())


def test_wrong_section_leaves_the_point_out_and_names_it() -> None:
    (left_out,) = study("wrong_section_left_out").left_out
    assert left_out["config"]["pytorch"] == {"batch_size": 8}
    assert left_out["config"]["backend"] == "vllm"
    assert "the section pytorch belongs to backend pytorch" in left_out["reason"]


def test_settings_that_left_vllm_are_noted_with_what_replaced_them() -> None:
    assert any("swap_space" in note for note in study("vllm_engine").notes)
    assert any("speculative_config" in note for note in study("vllm_rare").notes)


def test_local_files_are_found_and_count_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("adapter", "engine", "moved"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    lora = tmp_path / "lora.yaml"
    lora.write_text("model: gpt2\nlora: {adapter_path: ./adapter, merge_weights: true}\n")
    (with_adapter,) = load_study(lora).experiments
    assert value_at(with_adapter.config, "lora.adapter_path") == str(tmp_path / "adapter")
    assert value_at(with_adapter.config, "lora.merge_weights") is True
    lora.write_text("model: gpt2\nlora: {adapter_path: ./moved, merge_weights: true}\n")
    assert load_study(lora).experiments[0].id == with_adapter.id
    engine = tmp_path / "engine.yaml"
    engine.write_text("model: gpt2\nbackend: tensorrt\ntensorrt: {engine_path: ./engine}\n")
    (with_engine,) = load_study(engine).experiments
    assert value_at(with_engine.config, "tensorrt.engine_path") == str(tmp_path / "engine")
    assert make_plan(load_study(engine)).runs
