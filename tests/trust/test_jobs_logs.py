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
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "15.log"


def test_what_apptainer_repeats_of_secrets_is_struck_out_and_steers_no_terminal(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-very-own-token")
    secrets = ("my-very-own-token", "swordfish", "hf_abcdefghijklmnopqrst")
    message = f"pull docker://me:{secrets[1]}@host/x: {secrets[0]} {secrets[2]} \x1b[2J\r\u202e"
    log_file.write_text(f"{STARTED}FATAL:   {message}\n")
    reason = why_not_started(snakemakes(log_file))
    assert reason.startswith("Apptainer did not start the image: pull docker://")
    assert not [text for text in (*secrets, "\x1b", "\r", "\u202e") if text in reason]


def test_it_is_short_and_a_secret_is_not_cut_in_two_before_it_is_known(
    log_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-very-own-token")
    before, message = f"{STARTED}\n", "FATAL:   no my-very-"
    filler = "-" * (
        (1 << 16) - len(before) - len(message) - 1
    )  # the first 64 kB end amid the token
    log_file.write_text(f"{STARTED}{filler}\n\n{message}own-token\n")
    assert why_not_started(snakemakes(log_file)) == ""
    log_file.write_text(f"{STARTED}FATAL:   {'many ' * 5000}\n")
    assert len(why_not_started(snakemakes(log_file))) < 400 + len(str(log_file))


def test_of_a_log_without_end_only_the_beginning_is_read(log_file: Path) -> None:
    log_file.write_text(STARTED)
    os.truncate(log_file, 1 << 40)
    assert why_not_started(snakemakes(log_file)) == ""


@pytest.mark.timeout(20)
def test_a_pipe_a_folder_and_a_device_are_no_logs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert why_not_started(snakemakes(path)) == ""
