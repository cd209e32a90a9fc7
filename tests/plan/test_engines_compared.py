"""Studies of several engines: who does the same work."""

import json
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.config.requested_work import requested_work
from llenergymeasure.plan import Plan, describe_plan, make_plan
from llenergymeasure.plan.fairness import fairness, unmatched_experiments
from llenergymeasure.workload.load_study import load_study, study_from_mapping

EXAMPLE = Path(__file__).parents[2] / "config" / "examples" / "cross_backend.yaml"
STUDY: dict[str, Any] = {
    "name": "engines",
    "model": "tiny-llama",
    "backend": ["pytorch", "vllm"],
    "execution": {"n_cycles": 1},
}


def plan_with(**changes: Any) -> Plan:
    return make_plan(study_from_mapping({**STUDY, **changes}))


def test_one_engine_has_nothing_to_compare() -> None:
    plan = plan_with(backend="pytorch")
    assert fairness(plan) is None
    assert "Engines compared" not in describe_plan(plan)


def test_the_same_work_on_two_engines() -> None:
    plan = plan_with(sweep={"pytorch.batch_size": [1, 4], "vllm.engine.max_num_seqs": [1, 4]})
    fair = fairness(plan)
    assert fair is not None
    assert [len(group) for group in fair["same_work"]] == [4]
    assert fair["not_comparable"] == []
    assert "4 experiments in 1 group of the same work" in describe_plan(plan)


def test_engines_without_common_work_are_marked() -> None:
    both = [
        {"backend": "pytorch", "precision": "fp32", "decoder": {"temperature": 0.5}},
        {"backend": "vllm", "precision": "bf16"},
    ]
    plan = plan_with(backend="pytorch", experiments=both)
    fair = fairness(plan)
    assert fair is not None
    assert fair["same_work"] == []
    words = [str(pair) for pair in unmatched_experiments(plan)]
    assert words[0] == (
        "no experiment of pytorch does the work of one of vllm: precision is fp32 with pytorch "
        "and bf16 with vllm, decoder.temperature is 0.5 with pytorch and 1.0 with vllm"
    )
    assert f"Not comparable: {words[0]}" in describe_plan(plan)


def test_part_of_the_work_in_common() -> None:
    some = [{"backend": "pytorch", "max_output_tokens": length} for length in (16, 32)] + [
        {"backend": "vllm", "max_output_tokens": 16}
    ]
    (pair,) = unmatched_experiments(plan_with(backend="pytorch", experiments=some))
    assert (pair.backend, pair.other, pair.of) == ("pytorch", "vllm", 2)
    assert len(pair.experiments) == 1
    assert pair.differs == {"max_output_tokens": (32, 16)}
    assert str(pair).startswith("not every experiment of pytorch")


@pytest.mark.parametrize(
    ("backend", "section", "answers"),
    [
        ("vllm", {"sampling": {"max_tokens": 8}}, {"longest": 8}),
        ("vllm", {"sampling": {"max_tokens": 128}}, None),
        ("vllm", {"sampling": {"n": 2}}, {"number": 2}),
        ("vllm", {"sampling": {"ignore_eos": False}}, {"may_end": True}),
        ("vllm", {"sampling": {"stop": ["."]}}, {"may_end": True}),
        ("vllm", {"sampling": {"presence_penalty": 1.0}}, None),
        ("vllm", {"beam_search": {"beam_width": 2, "max_tokens": 8}}, {"longest": 8}),
        ("openai", {"body": {"max_completion_tokens": 8}}, {"longest": 8}),
        ("openai", {"body": {"n": 2, "stop": ["."]}}, {"number": 2, "may_end": True}),
        ("openai", {"body": {"n": "2", "ignore_eos": None}}, None),
        ("openai", {"body": {"max_tokens": "16"}}, None),
        ("openai", {"body": {"max_tokens": 8, "max_completion_tokens": 128}}, None),
    ],
)
def test_an_engines_own_settings_may_change_the_work(
    backend: str, section: dict[str, Any], answers: dict[str, Any] | None
) -> None:
    config = {"backend": backend, "max_output_tokens": 128, backend: section}
    assert requested_work(config).get("answers") == answers


def test_the_decoder_of_the_work_is_the_one_in_force() -> None:
    own = {"temperature": 1, "top_k": -1}
    config = {"backend": "vllm", "decoder": {"temperature": 0.3, "top_k": 5, "top_p": 0.9}}
    work = requested_work({**config, "vllm": {"sampling": own}})
    assert json.dumps(work) == '{"decoder": {"temperature": 1.0, "top_k": 0, "top_p": 0.9}}'
    (pair, _) = unmatched_experiments(
        plan_with(
            backend=["pytorch", "vllm"],
            decoder={"temperature": 0.3},
            vllm={"sampling": {"temperature": 0.5}},
        )
    )
    assert pair.differs == {"decoder.temperature": (0.3, 0.5)}


def test_the_example_compares_three_engines() -> None:
    plan = make_plan(load_study(EXAMPLE))
    fair = fairness(plan)
    assert fair is not None
    assert {run.backend for run in plan.runs} == {"pytorch", "vllm", "sglang"}
    assert [len(group) for group in fair["same_work"]] == [5]
    assert fair["not_comparable"] == []
