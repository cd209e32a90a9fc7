"""What may be compared: meter, machine and work part experiments, and nothing else does."""

import random
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.analysis import comparable
from llenergymeasure.analysis.comparable import Comparable
from llenergymeasure.analysis.merge import merge_runs
from llenergymeasure.analysis.selection import selections
from llenergymeasure.analysis.tables import read_table, write_tables
from llenergymeasure.results.record import Clocks, Tokens
from llenergymeasure.results.table import run_row
from results.synthetic import GPU, make_plan, make_result, write_plan, write_result

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


def study(
    folder: Path, configs: list[dict[str, Any]], *how: dict[str, Any], cycles: int = 1
) -> Any:
    """Return what may be compared in a study, and its experiments' ids."""
    plan = make_plan(configs, [], cycles=cycles)
    write_plan(folder, plan)
    for place, run in enumerate(plan["runs"]):
        write_result(folder, make_result(run, **{**did(), **how[place % len(configs)]}))
    rows = merge_runs(plan, folder).to_pylist()
    ids = [run["experiment"] for run in plan["runs"][: len(configs)]]
    return Comparable(selections(rows), plan["runs"]), ids


TWO = [PYTORCH, {**PYTORCH, "pytorch": {"batch_size": 1}}]


def test_heat_of_a_moment_parts_no_majority(tmp_path: Path) -> None:
    configs = [{**PYTORCH, "pytorch": {"batch_size": size}} for size in range(1, 9)]
    newer = {**on(driver="575.1"), **clocked()}
    how = [newer, newer, *({**on(), **clocked(heat=0.0008 * each)} for each in range(6))]
    told_apart, ids = study(tmp_path, configs, *how)
    assert told_apart.groups == [tuple(ids[2:]), tuple(ids[:2])]


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
        (clocked(heat=0.02), clocked(heat=0.07), None),  # 0.07 - 0.02 is above 0.05
        (clocked(heat=0.01), clocked(heat=0.06), None),
        (clocked(), clocked(heat=0.4), "heat held them down for 0 % and 40 % of the time"),
    ],
)
def test_two_experiments_of_one_backend(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any], reason: str | None
) -> None:
    told_apart, (a, b) = study(tmp_path, TWO, one, other)
    for pair in ((a, b), (b, a)):
        told = told_apart.incomparable_reason(*pair)
        assert (told is None) == (reason is None)
    assert reason is None or reason in told_apart.incomparable_reason(a, b)
    assert len(told_apart.groups) == (1 if reason is None else 2)


def test_a_power_limit_that_the_study_sets_is_a_setting(tmp_path: Path) -> None:
    configs = [{**PYTORCH, "gpu": {"power_limit_w": limit}} for limit in (700.0, 400.0)]
    told_apart, (a, b) = study(tmp_path, configs, on(), on(power_limit_w=400.0))
    assert told_apart.incomparable_reason(a, b) is None


def test_a_clock_that_the_study_sets_is_a_setting(tmp_path: Path) -> None:
    configs = [{**PYTORCH, "gpu": {"sm_clock_mhz": clock}} for clock in (1980, 1410)]
    comparable, (a, b) = study(tmp_path, configs, clocked(), clocked(1410.0))
    assert comparable.incomparable_reason(a, b) is None


def test_cycles_at_several_clocks_have_what_parts_them_in_their_spread(tmp_path: Path) -> None:
    plan = make_plan(TWO, [], cycles=2)
    write_plan(tmp_path, plan)
    for run, how in zip(plan["runs"], (1980.0, 1980.0, 1410.0, 1980.0), strict=True):
        write_result(tmp_path, make_result(run, **{**did(), **clocked(how)}))
    found = Comparable(selections(merge_runs(plan, tmp_path).to_pylist()), plan["runs"])
    assert len(found.groups) == 1


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
    tmp_path: Path, other: dict[str, Any], reason: str | None
) -> None:
    told_apart, (a, b) = study(tmp_path, [PYTORCH, VLLM], did(), other)
    told = told_apart.incomparable_reason(a, b)
    assert (told is None) == (reason is None)
    assert reason is None or reason in told


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((HASH, OTHER_HASH), (HASH, OTHER_HASH), None),
        ((HASH, OTHER_HASH), (HASH, None), None),  # a cycle that failed
        ((HASH, None), (None, OTHER_HASH), "prompts are"),
        ((HASH, OTHER_HASH), (OTHER_HASH, HASH), "prompts are"),
    ],
)
def test_prompts_drawn_anew_are_compared_cycle_by_cycle(
    tmp_path: Path, one: tuple[Any, Any], other: tuple[Any, Any], apart: str | None
) -> None:
    plan = make_plan([PYTORCH, VLLM], [], cycles=2)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        hashed = (one if run["backend"] == "pytorch" else other)[run["cycle"] - 1]
        if hashed is not None:
            write_result(tmp_path, make_result(run, **did(prompt_hash=hashed)))
    rows = merge_runs(plan, tmp_path).to_pylist()
    a, b = dict.fromkeys(run["experiment"] for run in plan["runs"])
    told = Comparable(selections(rows), plan["runs"]).incomparable_reason(a, b)
    assert (told is None) == (apart is None)
    assert apart is None or apart in told


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
        row = run_row(make_result(run, **did()), {}) | {"offered_requests_per_s": served}
        rows.append(row | {"validity": [code] if run["backend"] == "vllm" else []})
    a, b = (run["experiment"] for run in plan["runs"])
    told = Comparable(selections(rows), plan["runs"]).incomparable_reason(a, b)
    assert told == f"other work: requests were not all answered here as asked for ({code})"
    for row in rows:
        row["validity"] = []
    assert Comparable(selections(rows), plan["runs"]).incomparable_reason(a, b) is None


def test_settings_that_an_engine_resolved_alike_are_one_experiment(tmp_path: Path) -> None:
    key = "vllm.engine.attention_backend"
    asked = (None, "FLASH_ATTN", "TRITON_ATTN", "FLEX")
    configs = [{**BASE, "backend": "vllm", "vllm": {"engine": {}}} for _ in asked]
    for config, name in zip(configs, asked, strict=True):
        config["vllm"]["engine"] = {"attention_backend": name, "max_num_seqs": 8}
    plan = make_plan(configs, [key], cycles=2)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        name = run["config"]["vllm"]["engine"]["attention_backend"]
        ran = "FLEX" if name == "FLEX" else "CPU_ATTN"
        result = make_result(run, **did())
        engine = {"versions": {}, "resolved_config": {"workers": [{"attention": [ran]}]}}
        result.environment["engine"] = engine
        write_result(tmp_path, result, swept=[key])
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
        run_row(make_result(run, **did()), {}) | {"settings_in_force": f'{{"{key}": "O0"}}'}
        for run in plan["runs"]
    ]
    one, other = (run["experiment"] for run in plan["runs"])
    why = f"the engine ran it as experiment {one}: {key} is O0 in both"
    assert Comparable(selections(rows), plan["runs"]).outside == {other: why}
    configs[1]["vllm"]["engine"]["max_num_seqs"] = 16
    plan = make_plan(configs, [key], cycles=1)
    for row, run in zip(rows, plan["runs"], strict=True):
        row["experiment"] = run["experiment"]
    assert Comparable(selections(rows), plan["runs"]).outside == {}


def test_answers_that_may_end_early_are_not_counted(tmp_path: Path) -> None:
    configs = [{**config, "decoder": {"min_new_tokens": 4}} for config in (PYTORCH, VLLM)]
    told_apart, (a, b) = study(tmp_path, configs, did(), did(output=150))
    assert told_apart.incomparable_reason(a, b) is None


def test_work_that_was_planned_otherwise_parts_the_pair_and_not_the_groups(tmp_path: Path) -> None:
    shorter = {**VLLM, "max_output_tokens": 8}
    told_apart, (a, b) = study(tmp_path, [PYTORCH, shorter], did(), did(output=80))
    assert "output tokens per request are 16 and 8" in told_apart.incomparable_reason(a, b)
    assert told_apart.groups == [(a, b)]


def test_measured_experiments_are_first_and_the_rest_say_what_parts_them(tmp_path: Path) -> None:
    estimated = {"kind": "estimated", "source": "codecarbon"}
    configs = [{**PYTORCH, "pytorch": {"batch_size": size}} for size in (1, 2, 4)]
    told_apart, (a, b, c) = study(tmp_path, configs, estimated, {}, estimated)
    assert told_apart.groups == [(b,), (a, c)]
    assert set(told_apart.outside) == {a, c}
    assert "energy is measured by nvml (gpu) and estimated by codecarbon" in told_apart.outside[a]


def test_one_token_of_difference_keeps_both_means_and_parts_the_pair(tmp_path: Path) -> None:
    study(tmp_path, [PYTORCH, VLLM, SGLANG], did(), did(input=4010), did(), cycles=3)
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


def test_a_code_of_an_older_table_leaves_its_run_in_the_mean(tmp_path: Path) -> None:
    told_apart, _ = study(tmp_path, TWO, {"validity": ["not_comparable"]}, {})
    assert len(told_apart.groups) == 1
    rows = merge_runs(make_plan(TWO, [], cycles=1), tmp_path).to_pylist()
    assert all(chosen.used_runs for chosen in selections(rows).values())


@pytest.mark.parametrize(
    ("cards", "apart"),
    [
        (("1", "2", "3", "4"), False),  # what parts cards is in the spread of each experiment
        (("1", "2", "1", "3"), True),  # the first had one card alone, and the second had others
        (("1", "1", "1", "2"), False),
        (("1, 2", "3, 4", "1, 2", "3, 4"), True),
    ],
)
def test_runs_on_several_cards_hold_their_difference_in_their_spread(
    tmp_path: Path, cards: tuple[str, ...], apart: bool
) -> None:
    plan = make_plan(TWO, [], cycles=2)
    write_plan(tmp_path, plan)
    for run, each in zip(plan["runs"], cards, strict=True):
        gpus = [on(uuid=f"GPU-{name}")["environment"]["gpus"][0] for name in each.split(", ")]
        where = {"environment": {"host": "node-1", "gpus": gpus}}
        write_result(tmp_path, make_result(run, **{**did(), **where}))
    rows = merge_runs(plan, tmp_path).to_pylist()
    one, other = dict.fromkeys(run["experiment"] for run in plan["runs"])
    told = Comparable(selections(rows), plan["runs"]).incomparable_reason(one, other)
    assert (told is not None) == apart


def drawn(number: int, rng: random.Random) -> dict[str, Any]:
    """Return a run whose clocks are its own, some of them unknown."""
    (run,) = make_plan([PYTORCH], [], cycles=1)["runs"]
    clocks = {
        "sm_clock_free_mhz": rng.choice([None, rng.gauss(1500, 20)]),
        "sm_clock_max_mhz": rng.gauss(1490, 20),
        "memory_clock_median_mhz": rng.choice([None, rng.gauss(2600, 30)]),
        "slowed_by_heat_share": rng.choice([None, rng.uniform(0, 0.08)]),
    }
    return {**run_row(make_result(run), {}), "experiment": f"{number:012x}", **clocks}


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
    rows = [run_row(make_result(run), {}) for run in make_plan([PYTORCH], [], cycles=1)["runs"]]
    many = [
        {**rows[0], "experiment": f"{number:012x}", "prompt_hash": f"{number:064x}"}
        for number in range(500)
    ]
    if clocks:
        many = [{**row, "sm_clock_free_mhz": 1500 + place / 50} for place, row in enumerate(many)]
    assert len(Comparable(selections(many)).groups) == 1
    assert looked <= (3 if clocks else 1) * 500


def of_two_machines(folder: Path, *, left_out_on: str) -> list[dict[str, Any]]:
    """Write runs of batch size 1 on one node and of size 8 on another, but for one left out."""
    plan = make_plan(TWO, ["pytorch.batch_size"], cycles=4)
    write_plan(folder, plan)
    for run in plan["runs"]:
        host = "node-1" if run["config"] == TWO[1] else "node-2"
        how: dict[str, Any] = on(host, uuid=host)
        if host == "node-2" and run["cycle"] == 1:
            how = {**on(left_out_on, uuid=left_out_on), "validity": ["other_process"]}
        energy_j = 1000.0 + run["cycle"]
        write_result(folder, make_result(run, energy_j=energy_j, **how), plan["swept"])
    write_tables(folder, partial=False)
    rows: list[dict[str, Any]] = read_table(folder, "comparisons.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("left_out_on", ["node-1", "node-2"])
def test_a_run_that_is_in_no_mean_gives_two_no_machine_in_common(
    tmp_path: Path, left_out_on: str
) -> None:
    for row in of_two_machines(tmp_path, left_out_on=left_out_on):
        assert row["ratio"] is None
        assert "host is node-2 and node-1" in row["unavailable"]


def test_two_backends_with_their_left_out_runs_in_other_cycles_did_the_same_work(
    tmp_path: Path,
) -> None:
    """Prompts, and so input tokens per request, differ by cycle."""
    plan = make_plan([PYTORCH, VLLM], [], cycles=2)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        done = did(input=4000 + run["cycle"], prompt_hash=str(run["cycle"]) * 64)
        out = (run["config"]["backend"] == "vllm") == (run["cycle"] == 1)
        codes = {"validity": ["other_process"]} if out else {}
        write_result(tmp_path, make_result(run, **done, **codes))
    told_apart = Comparable(selections(merge_runs(plan, tmp_path).to_pylist()), plan["runs"])
    one, other = [run["experiment"] for run in plan["runs"][:2]]
    assert told_apart.incomparable_reason(one, other) is None


def test_what_others_are_not_compared_with_has_runs_in_means(tmp_path: Path) -> None:
    configs = [{**PYTORCH, "pytorch": {"batch_size": size}} for size in (1, 2, 4, 8)]
    out = {**on(name="H200"), "validity": ["other_process"]}
    how = [out, out, on("node-2", name="L4"), on("node-3", name="A100")]
    told_apart, ids = study(tmp_path, configs, *how)
    assert told_apart.groups == [(ids[2],), (ids[3],), tuple(ids[:2])]
    assert "GPU is L4 and A100" in told_apart.outside[ids[3]]


def test_a_level_that_may_not_be_compared_is_not_said_to_have_no_data(tmp_path: Path) -> None:
    configs = [{**PYTORCH, "pytorch": {"batch_size": size}} for size in (1, 2, 4)]
    plan = make_plan(configs, ["pytorch.batch_size"], cycles=3)
    write_plan(tmp_path, plan)
    for run in plan["runs"]:
        size = run["config"]["pytorch"]["batch_size"]
        how = on("node-2", name="L4", uuid="L4") if size == 4 else on()
        result = make_result(run, energy_j=1000.0 / size + run["cycle"], **how)
        write_result(tmp_path, result, plan["swept"])
    write_tables(tmp_path, partial=False)
    for row in read_table(tmp_path, "levels.parquet").to_pylist():
        if row["level"] == "4":
            assert row["ratio"] is None
            assert row["unavailable"].startswith("not comparable: other machines: GPU is")
