"""A job's log on a cluster is shown in part: without secrets, short, and whatever stands there."""

import os
from pathlib import Path

import pytest

from llenergymeasure.containers.images import why_not_started

STARTED = "host: node-1\nActivating singularity image /x.sif\n"


def snakemakes(log: Path) -> str:
    """What Snakemake says of a failed job."""
    return (
        f"Job 2 has been submitted with SLURM jobid 15 (log: {log}).\nError in rule measure:\n"
        f"    log: {log} (check log file(s) for error details)\n"
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "15.log"


def test_what_apptainer_repeats_of_secrets_is_struck_out_and_steers_no_terminal(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-very-own-token")
    secrets = ("my-very-own-token", "swordfish", "hf_abcdefghijklmnopqrst")
    said = f"pull docker://me:{secrets[1]}@host/x: {secrets[0]} {secrets[2]} \x1b[2J\r\u202e"
    own.write_text(f"{STARTED}FATAL:   {said}\n")
    shown = why_not_started(snakemakes(own))
    assert shown.startswith("Apptainer did not start the image: pull docker://")
    assert not [each for each in (*secrets, "\x1b", "\r", "\u202e") if each in shown]


def test_it_is_short_and_a_secret_is_not_cut_in_two_before_it_is_known(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-very-own-token")
    before, said = f"{STARTED}\n", "FATAL:   no my-very-"
    filler = "-" * ((1 << 16) - len(before) - len(said) - 1)  # the first 64 kB end amid the token
    own.write_text(f"{STARTED}{filler}\n\n{said}own-token\n")
    assert why_not_started(snakemakes(own)) == ""
    own.write_text(f"{STARTED}FATAL:   {'many ' * 5000}\n")
    assert len(why_not_started(snakemakes(own))) < 400 + len(str(own))


def test_of_a_log_without_end_only_the_beginning_is_read(own: Path) -> None:
    own.write_text(STARTED)
    os.truncate(own, 1 << 40)
    assert why_not_started(snakemakes(own)) == ""


@pytest.mark.timeout(20)
def test_a_pipe_a_folder_and_a_device_are_no_logs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert why_not_started(snakemakes(place)) == ""
