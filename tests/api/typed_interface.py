"""What a program sees of the interface's types: `make types` checks it with the sources."""

from typing import assert_type

import llenergymeasure as llem
from llenergymeasure import meter
from llenergymeasure.api.results import FailedRun


def program() -> None:
    """Is checked and not run."""
    with meter() as energy:
        pass
    assert_type(energy.energy_j, float | None)
    result = llem.run_experiment(model="tiny-llama")
    assert_type(result.energy_per_output_token_j, float | None)
    assert_type(llem.run_study("study.yaml").failed, tuple[FailedRun, ...])
