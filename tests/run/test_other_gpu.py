"""An engine that computes on another GPU than the one whose energy is taken for its own."""

import json
from pathlib import Path

import pytest

from llenergymeasure.results.energy import Energy
from llenergymeasure.run.result.run_validity import run_codes
from nvml_sim import sim
from support.forks import run_forked

NEIGHBOUR = [{"uuid": "GPU-b", "processes": 1}]


@pytest.mark.parametrize(
    ("own", "after", "marked"),
    [
        ({"GPU-a": 0}, NEIGHBOUR, True),
        ({"GPU-a": 0}, [], False),  # as in a container that sees no processes
        ({}, NEIGHBOUR, False),  # of its own card the driver cannot say it
        ({"GPU-a": 1}, NEIGHBOUR, False),
        ({"GPU-a": 0, "GPU-c": 2}, NEIGHBOUR, False),
        (None, NEIGHBOUR, False),  # measured by an earlier version
    ],
)
def test_it_is_seen_by_where_the_processes_are(
    own: dict[str, int] | None, after: list[dict[str, object]], marked: bool
) -> None:
    engine = {
        "resolved_config": {},
        "devices": ["GPU-a"],
        "computes_on_gpu": True,
        "beside": {"before": [], "after": after},
    }
    if own is not None:
        engine["own_processes"] = own
    energy = Energy(kind="measured", source="x", readings=[], scopes=["gpu"], gross_j=1.0)

    codes = run_codes({}, engine, energy, steady=None, quality=None)
    of_host = energy.model_copy(update={"scopes": ["cpu", "dram"]})

    assert ("other_gpu" in codes) == marked
    assert "computes_on_cpu" not in codes
    assert "other_gpu" not in run_codes({}, engine, of_host, steady=None, quality=None)
    assert not marked or "on GPU-a, whose energy this is, and there were on GPU-b" in str(codes)


def test_processes_are_counted_on_the_cards_asked_for(tmp_path: Path) -> None:
    sim.library_or_skip()
    cards = [sim.Device(uuid="GPU-a"), sim.Device(uuid="GPU-b", keys={"processes": [{"pid": 1}]})]
    variables = sim.environment(sim.Trace(cards).write(tmp_path))
    code = (
        "import json\nfrom llenergymeasure.machine.gpus.state import compute_process_counts\n"
        "both, unknown = ['GPU-a', 'GPU-b'], ['GPU-a', 'GPU-z']\n"
        "print(json.dumps([compute_process_counts(uuids) for uuids in (both, unknown)]))\n"
    )

    process = run_forked(code, variables, modules=("pynvml",))

    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == [{"GPU-a": 0, "GPU-b": 1}, {"GPU-a": 0}]
