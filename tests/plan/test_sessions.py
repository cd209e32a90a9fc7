"""Which runs share a start of their server, and what that does to the order."""

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.cli.plan import plan_lines
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import resolve_protocol
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.plan import Estimates, Plan, PlannedRun, describe_plan, make_plan
from llenergymeasure.plan.estimate import (
    FETCH_BYTES_PER_S,
    FINISH_S,
    READ_BYTES_PER_S,
    START_S,
    Device,
    ModelAndDevice,
    ModelSize,
)
from llenergymeasure.run.measure_script import followers, read_spec
from llenergymeasure.run.preflight.forecast import Forecast
from llenergymeasure.workload.load_study import study_from_mapping

RATES = [1, 2, 4, 8, 16, 32]


def plan_with(**settings: Any) -> Plan:
    study = {
        "name": "rates",
        "model": "tiny-llama",
        "serving": {"arrivals": "poisson"},
        "sweep": {"serving.rate_per_s": RATES},
        "execution": {"n_cycles": 3, "share_server": True},
        **settings,
    }
    return make_plan(study_from_mapping(study, origin=None))


def sessions(plan: Plan) -> list[list[PlannedRun]]:
    """The runs of each session, in the order in which they are run."""
    return [list(runs) for _, runs in groupby(plan.runs, lambda run: run.session)]


def test_each_cycle_of_the_rates_is_a_session_in_its_own_order() -> None:
    plan = plan_with()
    assert [(runs[0].session, len(runs)) for runs in sessions(plan)] == [(1, 6), (2, 6), (3, 6)]
    assert "18 runs on 3 starts of a server" in describe_plan(plan)
    orders = [[run.experiment for run in runs] for runs in sessions(plan)]
    assert len({tuple(order) for order in orders}) == 3
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_what_starts_another_server_is_another_session_and_sessions_are_shuffled() -> None:
    plan = plan_with(
        sweep={"serving.rate_per_s": RATES, "precision": ["fp32", "bf16"]},
        execution={"n_cycles": 8, "share_server": True},
    )
    assert [len(runs) for runs in sessions(plan)] == [6] * 16
    firsts = [runs[0] for runs in sessions(plan)]
    assert {run.config["precision"] for run in firsts[::2]} == {"fp32", "bf16"}
    for runs in sessions(plan):
        assert len({(run.cycle, run.config["precision"]) for run in runs}) == 1


@pytest.mark.parametrize("runner", ["docker:image", "apptainer:image.sif"])
def test_runs_in_a_container_with_its_meter_share_a_server_too(runner: str) -> None:
    assert [len(runs) for runs in sessions(plan_with(runners={"pytorch": runner}))] == [6] * 3


def test_a_session_is_counted_with_one_start() -> None:
    """Each of the others is quicker by a start, a load and the rest before it; its job finishes."""
    slow = ModelAndDevice(
        ModelSize(8e9, 16e9, 32, to_fetch_bytes=16e9), Device("card", 989e12, 3.35e12)
    )
    estimates = Estimates(lambda _: slow)
    shared, alone = plan_with(), plan_with(execution={"n_cycles": 3})
    started = resolve_protocol(ExperimentConfig(model="tiny-llama"), measured=True).idle_before_s
    started += START_S["pytorch"] + 16e9 / READ_BYTES_PER_S + 16e9 / FETCH_BYTES_PER_S
    less_s = estimates.plan(alone).seconds - estimates.plan(shared).seconds
    assert less_s == pytest.approx(15 * (started - FINISH_S))
    jobs = [job.seconds for job in estimates.jobs(shared.runs)]
    assert jobs[1:6] == [FINISH_S] * 5
    assert jobs[0] > 6 * (jobs[1] + 60)
    at_a_time = estimates.jobs(shared.runs, share=False)
    assert sum(job.seconds for job in at_a_time) == pytest.approx(estimates.plan(alone).seconds)
    most = plan_with(execution={"precision_target": 0.05, "share_server": True, "max_cycles": 9})
    assert "with all cycles" in describe_plan(most, estimates)
    longest = [replace(run, cycle=4) for run in most.runs[:6]]
    assert len({job.seconds for job in estimates.jobs([*most.runs[:6], *longest])}) == 2


def test_ids_and_plans_of_studies_that_share_nothing_are_as_they_were() -> None:
    shared, alone = plan_with(), plan_with(execution={"n_cycles": 3})
    assert set(shared.experiments) == set(alone.experiments)
    assert shared.study_design_hash == alone.study_design_hash
    assert b"session" not in alone.to_json_bytes()
    assert b"share_server" not in alone.to_json_bytes()
    assert [(run.experiment, run.cycle) for run in shared.runs] == [
        (run.experiment, run.cycle) for run in alone.runs
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"serving": {"arrivals": "poisson", "cached_prompts": True}},
        {"backend": "openai", "openai": {"base_url": "http://127.0.0.1:9/v1"}},
        {"quality": {"command": ["true"]}},
        {
            "backend": "openai",
            "openai": {"command": ["server", "{port}", "{serving.rate_per_s}"]},
        },
        {
            "runners": {"pytorch": "docker:image"},
            "execution": {"n_cycles": 3, "share_server": True, "meter": "host"},
        },
        {"serving": None, "sweep": {"pytorch.batch_size": [1, 2]}},
        {"sweep": {"precision": ["fp32", "bf16"]}, "serving": {"rate_per_s": 1}},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_no_session_where_there_is_no_server_to_share(settings: dict[str, Any]) -> None:
    plan = plan_with(**settings)
    assert {run.session for run in plan.runs} == {None}
    assert "no runs of a cycle can share a server" in describe_plan(plan)


def test_a_value_of_the_command_that_is_named_as_a_section_is_no_traffic() -> None:
    server = {"command": ["srv", "{port}", "{serving}"], "values": {"serving": "x"}}
    plan = plan_with(backend="openai", openai=server)
    assert [(runs[0].session, len(runs)) for runs in sessions(plan)] == [(1, 6), (2, 6), (3, 6)]


@pytest.mark.parametrize("order", ["sequential", "latin_square"])
def test_an_order_that_keeps_no_session_together_is_refused(order: str) -> None:
    with pytest.raises(ConfigurationError, match="share_server"):
        plan_with(execution={"share_server": True, "cycle_order": order})


def test_a_run_is_followed_by_those_after_it_in_its_session(tmp_path: Path) -> None:
    path, plan = tmp_path / "plan.json", plan_with()
    path.write_bytes(plan.to_json_bytes())
    place = 8  # the third of the second session
    run = plan.runs[place]
    spec = read_spec(path, f"{run.experiment}/{run.cycle}")
    assert [(run["experiment"], run["cycle"]) for run in followers(path, spec)] == [
        (run.experiment, run.cycle) for run in plan.runs[place + 1 : 12]
    ]
    assert Plan.read(path) == plan


def test_a_profile_that_lets_several_go_at_a_time_counts_a_start_for_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time and its text are those of the same study without shared servers."""
    profile = tmp_path / "config.yaml"
    profile.write_text("resources: {gpu: 4}\n")
    monkeypatch.setattr("llenergymeasure.cli.plan.forecast_for", lambda _: Forecast(local=False))
    several, alone = (
        "\n".join(plan_lines(plan, str(tmp_path), None))
        for plan in (plan_with(), plan_with(execution={"n_cycles": 3}))
    )
    assert "  each run starts its own server: with this profile" in several
    assert "starts of a server" not in several
    assert [line for line in several.splitlines() if " by estimate" in line] == [
        line for line in alone.splitlines() if " by estimate" in line
    ]
    assert "18 runs on 3 starts of a server" in "\n".join(plan_lines(plan_with(), None, None))
