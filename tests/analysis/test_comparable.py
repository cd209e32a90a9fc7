"""What may be compared: meter, machine and work part experiments, and nothing else does."""

import random
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from analysis.studies import row
from llenergymeasure.analysis import comparable
from llenergymeasure.analysis.comparable import Comparable
from llenergymeasure.analysis.selection import selections
from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.results.record import Clocks, Tokens
from results.synthetic import GPU, make_plan, write_runs

HASH, OTHER_HASH = "a" * 64, "b" * 64
BASE = {"model": "tiny-llama", "precision": "bf16", "max_output_tokens": 16}
PYTORCH = {**BASE, "backend": "pytorch", "pytorch": {"batch_size": 8}}
VLLM = {**BASE, "backend": "vllm", "vllm": {"engine": {"max_num_seqs": 8}}}
SGLANG = {**BASE, "backend": "sglang"}
DONE = Tokens(input=4000, output=160, requests=10, prompt_hash=HASH)


def did(**changes: Any) -> dict[str, Any]:
    return {"tokens": DONE.model_copy(update=changes)}


def on(host: str = "node-1", **gpu: Any) -> dict[str, Any]:
    card = {"uuid": GPU, "name": "NVIDIA H200", "driver": "570.1", "power_limit_w": 700.0, **gpu}
    return {"environment": {"host": host, "gpus": [card]}}


def on_two(*names: str) -> dict[str, Any]:
    cards = [on(uuid=name)["environment"]["gpus"][0] for name in names]
    return {"environment": {"host": "node-1", "gpus": cards}}


def clocked(free: float | None = 1980.0, memory: float = 2619.0, heat: float = 0.0) -> Any:
    top = free or 1620.0
    return {
        "clocks": Clocks(
            sm_clock_median_mhz=top,
            sm_clock_max_mhz=top,
            sm_clock_free_mhz=free,
            memory_clock_median_mhz=memory,
            slowed_by_heat_share=heat,
        )
    }


def compared(
    configs: list[dict[str, Any]], *how: dict[str, Any] | None, cycles: int = 1
) -> tuple[Comparable, list[str]]:
    """Return what may be compared in a study, and its experiments' ids.

    Args:
        configs: one an experiment.
        how: what the records of each experiment hold, or of each run cycle by cycle; None of a run
            that failed.
        cycles: of each experiment.
    """
    runs = make_plan(configs, [], cycles=cycles)["runs"]
    rows = [
        row(run, [], **{**did(), **each})
        for run, each in zip(runs, cycle(how), strict=False)
        if each is not None
    ]
    ids = [run["experiment"] for run in runs[: len(configs)]]
    return Comparable(selections(rows), runs), ids


def reason_of(
    configs: list[dict[str, Any]], *how: dict[str, Any] | None, cycles: int = 1
) -> str | None:
    """Return why the two experiments of a study may not be compared."""
    found, (one, other) = compared(configs, *how, cycles=cycles)
    return found.incomparable_reason(one, other)


def batch_sizes(*sizes: int) -> list[dict[str, Any]]:
    return [{**PYTORCH, "pytorch": {"batch_size": size}} for size in sizes]


TWO = batch_sizes(8, 1)


def test_heat_of_a_moment_parts_no_majority() -> None:
    newer = {**on(driver="575.1"), **clocked()}
    how = [newer, newer, *({**on(), **clocked(heat=0.0008 * each)} for each in range(6))]
    found, ids = compared(batch_sizes(*range(1, 9)), *how)
    assert found.groups == [tuple(ids[2:]), tuple(ids[:2])]


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({}, {}, None),
        ({}, {"kind": "estimated", "source": "codecarbon"}, "measured by nvml (gpu) and estimated"),
        ({}, {"source": "zeus"}, "energy is measured by nvml (gpu) and measured by zeus (gpu)"),
        (on(), on(), None),
        (on(), on("node-2"), "other machines: host is node-1 and node-2"),
        (on(), on(name="NVIDIA A100"), "other machines: GPU is NVIDIA H200 and NVIDIA A100"),
        (on(), on(driver="560"), "driver is 570.1 and 560"),
        (on(), on(power_limit_w=400.0), "power limit in W is 700 and 400"),
        (on(), on(uuid="GPU-2"), f"card is {GPU} and GPU-2"),
        (on(), on(driver=None), None),
        (did(), did(output=150), None),  # One backend's own settings are its user's to compare.
        (clocked(), clocked(), None),
        (clocked(), {}, None),
        (clocked(), clocked(1965.0), None),  # one step
        (clocked(), clocked(1410.0), "other clocks: SM clock is 1980 and 1410 MHz"),
        (clocked(), clocked(None), None),  # held down by its power limit: the work's own doing
        (clocked(1410.0), clocked(None), "SM clock is 1410 and 1620 or more MHz"),
        (clocked(), clocked(memory=1593.0), "memory clock is 2619 and 1593 MHz"),
        (clocked(), clocked(heat=0.04), None),
        (
            clocked(heat=0.0043),
            clocked(heat=0.4),
            "heat held them down for 0.43 % and 40 % of the time",
        ),
        (clocked(), clocked(heat=0.0525), None),  # shares in whole per cent
        (clocked(heat=0.02), clocked(heat=0.07), None),
        (clocked(heat=0.12), clocked(heat=0.17), None),  # 0.17 - 0.12 is above 0.05
        (clocked(), clocked(heat=0.4), "heat held them down for 0 % and 40 % of the time"),
    ],
)
def test_two_experiments_of_one_backend(
    one: dict[str, Any], other: dict[str, Any], reason: str | None
) -> None:
    found, (a, b) = compared(TWO, one, other)
    told = found.incomparable_reason(a, b)
    assert (told is None) == (reason is None) == (found.incomparable_reason(b, a) is None)
    assert reason is None or reason in str(told)
    assert len(found.groups) == (1 if reason is None else 2)


@pytest.mark.parametrize(
    ("name", "values", "one", "other"),
    [
        ("power_limit_w", (700.0, 400.0), on(), on(power_limit_w=400.0)),
        ("sm_clock_mhz", (1980, 1410), clocked(), clocked(1410.0)),
    ],
    ids=["power limit", "clock"],
)
def test_what_the_study_sets_is_a_setting(
    name: str, values: tuple[float, float], one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert reason_of([{**PYTORCH, "gpu": {name: value}} for value in values], one, other) is None


@pytest.mark.parametrize(
    ("how", "apart"),
    [
        # What parts clocks and cards is in the spread of each experiment.
        ([clocked(each) for each in (1410.0, 1980.0, 1980.0, 1980.0)], False),
        ([on(uuid=each) for each in ("1", "2", "3", "4")], False),
        # The first had one card alone, and the second had others.
        ([on(uuid=each) for each in ("1", "2", "1", "3")], True),
        ([on(uuid=each) for each in ("1", "1", "1", "2")], False),
        ([on_two("1", "2"), on_two("3", "4")] * 2, True),
        ([on_two("1", "2"), on_two("2", "3")] * 2, False),
    ],
    ids=[
        "clocks",
        "four cards",
        "a card and two",
        "a card among two",
        "two pairs of cards",
        "two pairs with a card in common",
    ],
)
def test_two_cycles_hold_what_parts_them_in_their_spread(
    how: list[dict[str, Any]], apart: bool
) -> None:
    assert (reason_of(TWO, *how, cycles=2) is not None) == apart


# Two backends must have done the same work.


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (did(), None),
        (did(input=8000, output=320, requests=20), None),  # Twice the passes, the same work.
        (did(input=4010), "other work: input tokens per request are 400 and 401"),
        (did(output=150), "other work: output tokens per request are 16 and 15"),
        (did(prompt_hash=OTHER_HASH), f"prompts are {HASH[:12]} and {OTHER_HASH[:12]}"),
    ],
)
def test_two_backends_must_have_done_the_same_work(
    other: dict[str, Any], reason: str | None
) -> None:
    told = reason_of([PYTORCH, VLLM], did(), other)
    assert (told is None) == (reason is None)
    assert reason is None or reason in str(told)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((HASH, OTHER_HASH), (HASH, OTHER_HASH), False),
        ((HASH, OTHER_HASH), (HASH, None), False),  # a cycle that failed
        ((HASH, None), (None, OTHER_HASH), True),
        ((HASH, OTHER_HASH), (OTHER_HASH, HASH), True),
    ],
)
def test_prompts_drawn_anew_are_compared_cycle_by_cycle(
    one: tuple[str | None, str | None], other: tuple[str | None, str | None], apart: bool
) -> None:
    how = [
        each and did(prompt_hash=each)
        for of_cycle in zip(one, other, strict=True)
        for each in of_cycle
    ]
    told = reason_of([PYTORCH, VLLM], *how, cycles=2)
    assert ("prompts are" in told if told else False) == apart


@pytest.mark.parametrize(
    "code", ["length_mismatch", "cached_prompts", "token_mismatch", "remote_server"]
)
def test_traffic_that_was_not_as_asked_for_is_compared_with_no_other_backends(
    code: str,
) -> None:
    plan = make_plan([PYTORCH, VLLM], [], cycles=1)
    rows = []
    for run in plan["runs"]:
        served = None if code == "remote_server" else 5.0
        made = row(run, [], **did()) | {"offered_requests_per_s": served}
        rows.append(made | {"validity": [code] if run["backend"] == "vllm" else []})
    a, b = (run["experiment"] for run in plan["runs"])
    told = Comparable(selections(rows), plan["runs"]).incomparable_reason(a, b)
    assert told == f"other work: requests were not all answered here as asked for ({code})"
    for made in rows:
        made["validity"] = []
    assert Comparable(selections(rows), plan["runs"]).incomparable_reason(a, b) is None


def test_settings_that_an_engine_resolved_alike_are_one_experiment(tmp_path: Path) -> None:
    key = "vllm.engine.attention_backend"
    asked = (None, "FLASH_ATTN", "TRITON_ATTN", "FLEX")
    configs = [
        {**VLLM, "vllm": {"engine": {"attention_backend": name, "max_num_seqs": 8}}}
        for name in asked
    ]

    def made(run: Any) -> dict[str, Any]:
        name = run["config"]["vllm"]["engine"]["attention_backend"]
        ran = {"workers": [{"attention": ["FLEX" if name == "FLEX" else "CPU_ATTN"]}]}
        environment = {**on()["environment"], "engine": {"versions": {}, "resolved_config": ran}}
        return {**did(), "environment": environment}

    write_runs(tmp_path, make_plan(configs, [key], cycles=2), made)
    write_tables(tmp_path, partial=False)
    rows = read_table(tmp_path, "summary.parquet").to_pylist()
    first = rows[0]["experiment"]
    why = f"the engine ran it as experiment {first}: {key} is CPU_ATTN in both"
    assert [row["not_comparable"] for row in rows] == [None, why, why, None]
    assert [row["n"] for row in rows] == [2, 2, 2, 2]
    pairs = read_table(tmp_path, "comparisons.parquet").to_pylist()
    compared = {(one["experiment_a"], one["experiment_b"]) for one in pairs if one["ratio"]}
    assert compared == {(first, rows[3]["experiment"])}


def test_a_setting_of_several_parts_that_is_resolved_alike_makes_one_experiment() -> None:
    key = "vllm.engine.compilation_config"
    configs = [
        {**VLLM, "vllm": {"engine": {"compilation_config": {"level": level}, "max_num_seqs": 8}}}
        for level in (0, 3)
    ]
    plan = make_plan(configs, [key], cycles=1)
    rows = [
        row(run, [], **did()) | {"settings_in_force": f'{{"{key}": "O0"}}'} for run in plan["runs"]
    ]
    one, other = (run["experiment"] for run in plan["runs"])
    why = f"the engine ran it as experiment {one}: {key} is O0 in both"
    assert Comparable(selections(rows), plan["runs"]).outside == {other: why}
    configs[1]["vllm"]["engine"]["max_num_seqs"] = 16
    plan = make_plan(configs, [key], cycles=1)
    for made, run in zip(rows, plan["runs"], strict=True):
        made["experiment"] = run["experiment"]
    assert Comparable(selections(rows), plan["runs"]).outside == {}


def test_answers_that_may_end_early_are_not_counted() -> None:
    configs = [{**config, "decoder": {"min_new_tokens": 4}} for config in (PYTORCH, VLLM)]
    assert reason_of(configs, did(), did(output=150)) is None


def test_work_that_was_planned_otherwise_parts_the_pair_and_not_the_groups() -> None:
    found, (a, b) = compared([PYTORCH, {**VLLM, "max_output_tokens": 8}], did(), did(output=80))
    assert "output tokens per request are 16 and 8" in str(found.incomparable_reason(a, b))
    assert found.groups == [(a, b)]


def test_one_token_of_difference_keeps_both_means_and_parts_the_pair(tmp_path: Path) -> None:
    plan = make_plan([PYTORCH, VLLM, SGLANG], [], cycles=3)
    write_runs(tmp_path, plan, lambda run: did(input=4010 if run["backend"] == "vllm" else 4000))
    write_tables(tmp_path, partial=False)
    rows = read_table(tmp_path, "summary.parquet").to_pylist()
    assert [row["n"] for row in rows] == [3, 3, 3]
    assert all(row["energy_per_output_token_j_mean"] is not None for row in rows)
    assert [row["comparison_group"] for row in rows] == [1, 2, 1]
    assert "400 and 401" in rows[1]["not_comparable"]
    pairs = read_table(tmp_path, "comparisons.parquet").to_pylist()
    apart = [
        pair["unavailable"] or "" for pair in pairs if pair["experiment_b"] == rows[1]["experiment"]
    ]
    assert all("not comparable: other work: input tokens" in text for text in apart)
    levels = read_table(tmp_path, "levels.parquet").to_pylist()
    assert not any(row["level"] == "vllm" and row["ratio"] is not None for row in levels)


def test_two_backends_with_their_left_out_runs_in_other_cycles_did_the_same_work() -> None:
    """Prompts, and so input tokens per request, differ by cycle."""
    one, two = (did(input=4000 + number, prompt_hash=str(number) * 64) for number in (1, 2))
    out = {"validity": ["other_process"]}
    assert reason_of([PYTORCH, VLLM], one, one | out, two | out, two, cycles=2) is None


# Groups of which all may be compared.


def test_measured_experiments_are_first_and_the_rest_say_what_parts_them() -> None:
    estimated = {"kind": "estimated", "source": "codecarbon"}
    found, (a, b, c) = compared(batch_sizes(1, 2, 4), estimated, {}, estimated)
    assert found.groups == [(b,), (a, c)]
    assert set(found.outside) == {a, c}
    assert "energy is measured by nvml (gpu) and estimated by codecarbon" in found.outside[a]


def test_what_others_are_not_compared_with_has_runs_in_means() -> None:
    out = {**on(name="H200"), "validity": ["other_process"]}
    how = [out, out, on("node-2", name="L4"), on("node-3", name="A100")]
    found, ids = compared(batch_sizes(1, 2, 4, 8), *how)
    assert found.groups == [(ids[2],), (ids[3],), tuple(ids[:2])]
    assert "GPU is L4 and A100" in found.outside[ids[3]]


def drawn(number: int, rng: random.Random) -> dict[str, Any]:
    """Return a run whose clocks are its own, some of them unknown."""
    (run,) = make_plan([PYTORCH], [], cycles=1)["runs"]
    clocks = {
        "sm_clock_free_mhz": rng.choice([None, rng.gauss(1500, 20)]),
        "sm_clock_max_mhz": rng.gauss(1490, 20),
        "memory_clock_median_mhz": rng.choice([None, rng.gauss(2600, 30)]),
        "slowed_by_heat_share": rng.choice([None, rng.uniform(0, 0.08)]),
    }
    return {**row(run, []), "experiment": f"{number:012x}", **clocks}


@pytest.mark.parametrize("seed", range(20))
def test_all_of_a_group_may_be_compared_and_none_of_a_later_one_with_all(seed: int) -> None:
    rng = random.Random(seed)
    found = Comparable(selections(drawn(number, rng) for number in range(12)))
    for place, group in enumerate(found.groups):
        assert all(found.incomparable_reason(a, b) is None for a in group for b in group if a != b)
        for later in found.groups[place + 1 :]:
            assert all(any(found.incomparable_reason(a, b) for a in group) for b in later)


@pytest.mark.parametrize("clocks", [False, True], ids=["their prompts", "their clocks"])
def test_groups_are_found_without_looking_at_every_pair(
    monkeypatch: pytest.MonkeyPatch, clocks: bool
) -> None:
    looked = 0
    difference = comparable._measurement_difference

    def counted(one: Any, other: Any) -> str | None:
        nonlocal looked
        looked += 1
        return difference(one, other)

    monkeypatch.setattr(comparable, "_measurement_difference", counted)
    (run,) = make_plan([PYTORCH], [], cycles=1)["runs"]
    many = [
        {**row(run, []), "experiment": f"{number:012x}", "prompt_hash": f"{number:064x}"}
        for number in range(500)
    ]
    if clocks:
        many = [{**each, "sm_clock_free_mhz": 1500 + place / 50} for place, each in enumerate(many)]
    assert len(Comparable(selections(many)).groups) == 1
    assert looked <= (3 if clocks else 1) * 500


# In the tables.


@pytest.mark.parametrize("left_out_on", ["node-1", "node-2"])
def test_a_run_that_is_in_no_mean_gives_two_no_machine_in_common(left_out_on: str) -> None:
    """Runs of batch size 1 on one node and of size 8 on another, but for one left out."""
    out = {**on(left_out_on, uuid=left_out_on), "validity": ["other_process"]}
    usual = [on("node-2", uuid="node-2"), on("node-1", uuid="node-1")]
    told = reason_of(TWO, out, usual[1], *usual * 3, cycles=4)
    assert "host is node-2 and node-1" in str(told)


def test_a_level_that_may_not_be_compared_is_not_said_to_have_no_data(tmp_path: Path) -> None:
    def made(run: Any) -> dict[str, Any]:
        size = run["config"]["pytorch"]["batch_size"]
        how = on("node-2", name="L4", uuid="L4") if size == 4 else on()
        return {"energy_j": 1000.0 / size + run["cycle"], **how}

    write_runs(tmp_path, make_plan(batch_sizes(1, 2, 4), ["pytorch.batch_size"]), made)
    write_tables(tmp_path, partial=False)
    levels = read_table(tmp_path, "levels.parquet").to_pylist()
    of_4 = [each for each in levels if each["level"] == "4"]
    assert of_4
    for each in of_4:
        assert each["ratio"] is None
        assert each["unavailable"].startswith("not comparable: other machines: GPU is")
