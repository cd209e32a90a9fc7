"""A PyTorch that cannot use the GPU which is metered: refused, or disqualified, or on purpose."""

from pathlib import Path

import pytest

from nvml_sim import sim
from support.attempts import start

pytestmark = [pytest.mark.slow, pytest.mark.system]


@pytest.fixture
def card(tmp_path: Path) -> dict[str, str]:
    """A card that idles at 25 W, whatever the CPU does."""
    sim.library_or_skip()
    trace = sim.Trace([sim.Device(power_w=[(0.0, 25.0)])]).write(tmp_path)
    return sim.environment(trace, base={}, computes=False)


def test_without_the_preflight_the_result_is_disqualified(
    tmp_path: Path, card: dict[str, str]
) -> None:
    run = start(tmp_path, spec={"skip_preflight": True}, variables=card)

    assert run.process.wait(180) == 0

    result = run.result()
    assert result["provenance"]["computes_on_gpu"] is False
    assert "computes_on_cpu" in result["validity"]


def test_on_the_cpu_on_purpose_the_energy_is_the_hosts(
    tmp_path: Path, card: dict[str, str]
) -> None:
    run = start(tmp_path, variables=card, pytorch={"device_map": "cpu"})

    assert run.process.wait(180) == 0

    result = run.result()
    assert "gpu" not in result["energy"]["scopes"]
    assert "computes_on_cpu" not in result["validity"]
