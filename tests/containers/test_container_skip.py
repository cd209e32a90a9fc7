"""The rest before a run is ended from outside its container."""

from pathlib import Path

import pytest

from support.studies import living, llem, result_times, start_snakemake, wait_for, write_study

pytestmark = [pytest.mark.slow, pytest.mark.system, pytest.mark.timeout(900)]


def test_a_rest_is_skipped_into_apptainer(tmp_path: Path, sif: Path) -> None:
    study = write_study(
        tmp_path,
        runners={"pytorch": f"apptainer:{sif}"},
        execution={"n_cycles": 2, "cycle_order": "sequential", "cycle_gap_seconds": 3600},
    )
    said = tmp_path / "said"
    words = ("--use-apptainer", "--cores", "1", "--configfile", str(study))
    with said.open("wb") as log:
        process = start_snakemake(tmp_path, *words, log=log)

    def skipped() -> bool:
        assert process.poll() is None, said.read_text()
        return llem(tmp_path, "skip", str(study)).returncode == 0

    try:
        wait_for(skipped, 400, said.read_text)
        assert process.wait(300) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()
    assert len(result_times(tmp_path)) == 2
    assert not living(str(tmp_path))
