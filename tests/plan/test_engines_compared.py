"""Studies of several engines: who does the same work, and whose knobs are alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.catalogue import store
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.loading import load_study, study_from_mapping
from llenergymeasure.plan import Plan, describe_plan, engines_compared, make_plan
from llenergymeasure.plan.equivalents import EQUIVALENT, equivalents
from llenergymeasure.plan.fairness import unlike, work_of

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "cross_backend.yaml"
STUDY: dict[str, Any] = {
    "name": "engines",
    "model": "tiny-llama",
    "backend": ["pytorch", "vllm"],
    "execution": {"n_cycles": 1},
}


def plan(**changes: Any) -> Plan:
    return make_plan(study_from_mapping({**STUDY, **changes}))


def test_one_engine_has_nothing_to_compare() -> None:
    made = plan(backend="pytorch")
    assert engines_compared(made) == {}
    assert "Engines compared" not in describe_plan(made)


def test_the_same_work_on_two_engines() -> None:
    made = plan(sweep={"pytorch.batch_size": [1, 4], "vllm.engine.max_num_seqs": [1, 4]})
    fair = engines_compared(made)["fairness"]
    assert [len(group) for group in fair["same_work"]] == [4]
    assert fair["not_comparable"] == []
    assert "4 experiments in 1 group of the same work" in describe_plan(made)


def test_engines_without_common_work_are_marked() -> None:
    both = [
        {"backend": "pytorch", "precision": "fp32", "decoder": {"temperature": 0.5}},
        {"backend": "vllm", "precision": "bf16"},
    ]
    made = plan(backend="pytorch", experiments=both)
    assert engines_compared(made)["fairness"]["same_work"] == []
    words = [str(each) for each in unlike(made)]
    assert words[0] == (
        "no experiment of pytorch does the work of one of vllm: precision is fp32 with pytorch "
        "and bf16 with vllm, decoder.temperature is 0.5 with pytorch and 1.0 with vllm"
    )
    assert f"Not comparable: {words[0]}" in describe_plan(made)


def test_part_of_the_work_in_common() -> None:
    some = [{"backend": "pytorch", "max_output_tokens": length} for length in (16, 32)] + [
        {"backend": "vllm", "max_output_tokens": 16}
    ]
    (found,) = unlike(plan(backend="pytorch", experiments=some))
    assert (found.backend, found.other, found.of) == ("pytorch", "vllm", 2)
    assert len(found.experiments) == 1
    assert found.differs == {"max_output_tokens": (32, 16)}
    assert str(found).startswith("not every experiment of pytorch")


@pytest.mark.parametrize(
    ("sampling", "answers"),
    [
        ({"max_tokens": 8}, {"longest": 8}),
        ({"max_tokens": 128}, None),
        ({"n": 2}, {"number": 2}),
        ({"ignore_eos": False}, {"may_end": True}),
        ({"stop": ["."]}, {"may_end": True}),
        ({"presence_penalty": 1.0}, None),
    ],
)
def test_an_engines_own_sampling_may_change_the_work(
    sampling: dict[str, Any], answers: dict[str, Any] | None
) -> None:
    config = {"backend": "vllm", "max_output_tokens": 128, "vllm": {"sampling": sampling}}
    assert work_of(config).get("answers") == answers


def test_equivalent_knobs_stand_side_by_side() -> None:
    made = plan(sweep={"vllm.engine.enable_prefix_caching": [True, False]})
    made = plan(
        backend=["vllm", "sglang"],
        sweep={"vllm.engine.enable_prefix_caching": [True, False]},
        runners={"vllm": "local", "sglang": "docker"},
    )
    rows = {row["knob"]: row for row in equivalents(made)}
    (own,) = rows["prefix cache"]["vllm"]
    (others,) = rows["prefix cache"]["sglang"]
    assert (own["key"], own["values"]) == ("vllm.engine.enable_prefix_caching", [False, True])
    assert (others["key"], others["values"]) == ("sglang.engine.disable_radix_cache", [None])
    assert others["default"] is False
    line = next(line for line in describe_plan(made).splitlines() if "prefix cache" in line)
    assert "enable_prefix_caching=false|true" in line
    assert "disable_radix_cache=(false)" in line


def test_a_knob_of_one_engine_alone_is_not_shown() -> None:
    knobs = [row["knob"] for row in equivalents(plan())]
    assert "sequences at once" in knobs
    assert "prefix cache" not in knobs


@pytest.mark.parametrize("backend", ["pytorch", "vllm", "sglang"])
def test_every_knob_of_the_table_exists(backend: str) -> None:
    sections = store.load(backend).sections
    own = ExperimentConfig.model_fields[backend].annotation
    for knobs in EQUIVALENT.values():
        for key in knobs.get(backend, ()):
            name = key.removeprefix("engine.")
            known = any(name in section for section in sections.values())
            assert known or (backend == "pytorch" and f"'{name}'" in str(own_fields(own))), key


def own_fields(annotation: Any) -> list[str]:
    (model,) = [each for each in annotation.__args__ if hasattr(each, "model_fields")]
    return list(model.model_fields)


def test_the_example_compares_three_engines() -> None:
    made = make_plan(load_study(EXAMPLE))
    fair = engines_compared(made)["fairness"]
    assert {run.backend for run in made.runs} == {"pytorch", "vllm", "sglang"}
    assert [len(group) for group in fair["same_work"]] == [5]
    assert fair["not_comparable"] == []


def test_what_is_told_beside_the_plan_is_json() -> None:
    made = make_plan(load_study(EXAMPLE))
    told = json.loads(made.to_json_bytes(engines_compared(made)))
    assert {"fairness", "equivalent", "runs"} <= set(told)
    assert "fairness" not in json.loads(made.to_json_bytes())
