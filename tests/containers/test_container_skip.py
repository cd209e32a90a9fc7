"""The rest before a run is ended from outside its container."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.studies import ROOT, environment, living, llem, result_times, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]


def test_a_rest_is_skipped_into_apptainer(tmp_path: Path, sif: Path) -> None:
    study = write_study(
        tmp_path,
        runners={"pytorch": f"apptainer:{sif}"},
        execution={"n_cycles": 2, "cycle_order": "sequential", "cycle_gap_seconds": 3600},
    )
    said = tmp_path / "said"
    command = ["-m", "snakemake", "-s", ROOT / "Snakefile", "--use-apptainer", "--cores", "1"]
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--configfile", str(study)],
            cwd=tmp_path,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 400
        while llem(tmp_path, "skip", str(study)).returncode != 0:
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.5)
        assert process.wait(300) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()
    assert len(result_times(tmp_path)) == 2
    assert not living(str(tmp_path))
