import pytest

from llenergymeasure.report.experiments import flag_rows
from llenergymeasure.report.failed_runs import advise, failures
from llenergymeasure.validity_codes import DISQUALIFYING, VALIDITY


@pytest.mark.parametrize(
    ("status", "error_class", "part"),
    [
        ("failed", "OutOfMemoryError", "lower the batch size"),
        ("failed", "EngineExit", "Look at the log"),
        ("failed", "ReadTimeout", "Look at the log"),
        ("failed", "TimeoutError", "run_timeout_seconds"),
        ("failed", "ModuleNotFoundError", "requirements file"),
        ("failed", "GatedRepoError", "access token"),
        ("failed", "PreflightError", "not fit for the run"),
        ("failed", "BackendError", "refused a setting"),
        ("failed", None, "Look at the log"),
        ("lost", "ProcessGone", "in .snakemake/slurm_logs"),
        ("missing", "NeverBegan", "the log of the job itself"),
        ("lost", "RecordGone", "removed or damaged"),
        ("interrupted", None, "Stopped from outside"),
        ("missing", None, "Never started"),
        ("running", None, "Still running"),
    ],
)
def test_every_end_has_advice_that_fits(status, error_class, part):
    assert part in advise(status, error_class)


def run(cycle, **changes):
    return {
        "experiment": "0123456789ab",
        "cycle": cycle,
        "status": "failed",
        "phase": "load",
        "error_class": "ValueError",
        "error_message": "bad\nvalue",
        **changes,
    }


def test_runs_of_one_reason_stand_together():
    rows = [run(1), run(2), run(3, phase="measure"), run(4, status="completed")]
    first, second = failures(rows)
    assert first.runs == (("0123456789ab", 1), ("0123456789ab", 2))
    assert first.reason == "failed in load: ValueError: bad; value"
    assert second.reason == "failed in measure: ValueError: bad; value"


def test_every_validity_code_is_explained():
    rows = {
        row["code"]: row for row in flag_rows([{"validity": [*VALIDITY, "of_a_later_version"]}])
    }
    assert all(rows[code]["meaning"].endswith(".") for code in VALIDITY)
    left_out = {code for code in rows if rows[code]["consequence"] == "left out of means"}
    assert left_out == DISQUALIFYING
    assert all(rows[code]["consequence"] == "in means, shown" for code in rows.keys() - left_out)
    assert "another version" in rows["of_a_later_version"]["meaning"]
