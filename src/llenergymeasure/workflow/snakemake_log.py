"""Why Snakemake failed when no run explains it, from its log and its jobs' logs."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, dropwhile
from pathlib import Path

from llenergymeasure.containers.images import failed_job_logs, why_not_started
from llenergymeasure.files import load_text, open_to_read
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import printable
from llenergymeasure.workflow.slurm_jobs import (
    CHANGE_PROFILE,
    EARLIER_JOBS_PREFIX,
    NEVER_ENDS_CLAUSE,
    NO_JOBS_PREFIX,
)

_HEAD_BYTES = 1 << 12
_MAX_LENGTH = 300
_SNAKEMAKE_HINT = "For further error details"
"""Begins Snakemake's addition to an executor's message, without a blank before it."""
_UNRELATED_TO_PROFILE = re.compile(
    r"contact|connect|socket|standby|temporarily|transmitted|munge|authentication|I/O error|Errno",
    re.IGNORECASE,
)
"""In errors of a SLURM that did not answer, or of a file that could not be written: changing the
profile does not help. Source: SLURM, src/common/slurm_errno.c.
"""


def failure_reason(log: str) -> str:
    """Return the first error of sbatch, Apptainer or a job's shell, or what could not be written.

    It is one line; empty if there is none.

    Args:
        log: Snakemake's log.
    """
    refusal = re.search(
        r"sbatch: error: .*(\nsbatch: .*)*|(?<=Job submission failed with exception: ).+",
        log.replace("Available accounts:\n", "Available accounts: "),  # as the executor says
    )
    if refusal is not None:
        first, *more = refusal[0].partition(_SNAKEMAKE_HINT)[0].rstrip("'.").split("\n")
        message = "; ".join([first, *(line.removeprefix("sbatch: error: ") for line in more)])
        remedy = "" if _UNRELATED_TO_PROFILE.search(message) else f". {CHANGE_PROFILE}"
        return f"{_shortened(message)}{remedy}"
    if reason := why_not_started(log):
        return reason
    shell_errors = filter(None, map(_shell_error, failed_job_logs(log)))
    own_errors = re.findall(r"(?m)^llem: (.+)", log)
    # Snakemake's own have a traceback, of which the last line has the file.
    errors = re.findall(r"""(?m)^\w+Error: \[Errno \d+\] (.+?): (['"])(.+?)\2""", log)
    file_errors = [f"{path}: {reason}" for reason, _, path in errors[-1:]]
    return next(chain(shell_errors, map(_shortened, own_errors + file_errors)), "")


def failed_jobs(log: str) -> Iterator[tuple[str, str]]:
    """Yield the run of each failed job, ``EXPERIMENT/CYCLE``, and the reason if known."""
    submitted = dict(re.findall(r"(?m)^Job (\d+) (has been submitted .*)$", log))
    hopeless_wait = re.search(rf"(?m)^.*{NEVER_ENDS_CLAUSE}.*", log)
    for section in re.split(r"(?m)^Error in rule measure:\n", log)[1:]:
        error = section.partition("\n    shell:")[0]
        job = re.search(r"jobid: (\d+)\n(?:    .*\n)*?    output: .*?(\w+/\d+)/result\.json", error)
        if job is None:
            continue
        job_id, run = job.groups()
        reason = failure_reason(f"Job {job_id} {submitted.get(job_id)}\n{error}")
        state = re.search(r"SLURM-job '(\d+)' failed, SLURM status is: '(?!FAILED)(\w+)'", error)
        if not reason and state is not None:
            before = f"; before: {hopeless_wait[0]}" if hopeless_wait else ""
            reason = f"SLURM says of its job {state[1]}: {state[2]}{before}"
        yield run, reason


def _shell_error(path: str) -> str:
    """Return the first line of a job's log, if the job ended before Snakemake started in it."""
    with suppress(OSError), open_to_read(path) as stream:
        text = stream.read(_HEAD_BYTES).decode(errors="replace").strip()
        if text and not re.search(r"^(SNAKEMAKE$|\s*host: )", text, re.MULTILINE | re.IGNORECASE):
            return f"{_shortened(text.splitlines()[0])} ({path})"
    return ""


def _shortened(text: str) -> str:
    return textwrap.shorten(printable(without_secrets(text)), _MAX_LENGTH, placeholder=" …")


def job_messages(log: str) -> list[str]:
    """Return the log's lines about an earlier call's jobs, and about no job being left to run."""
    return re.findall(rf"^(?:{EARLIER_JOBS_PREFIX}|{NO_JOBS_PREFIX}).*", log, re.MULTILINE)


def read_job_messages(path: Path) -> list[str]:
    """Return the same of the log's file; nothing where it cannot be read just now."""
    with suppress(OSError):
        return job_messages(load_text(path))
    return []


def failed_rule_logs(log: str, folder: StudyFolder) -> str:
    """Return the text of the failed rules' own logs."""
    texts = [
        load_text(path).strip()
        for rule in dict.fromkeys(re.findall(r"^Error in rule (\w+):", log, re.MULTILINE))
        for path in sorted((folder.path / "logs").glob(f"{rule}*.log"))
        if path.is_file()
    ]
    return "".join(f"{text}\n" for text in texts if text)


def killed_message(on_cluster: bool) -> str:
    """Return the message for a Snakemake that was itself killed."""
    if on_cluster:
        return "Snakemake was killed; its jobs stay in the queue, and the next call ends them first"
    return "Snakemake was killed; the same call makes what is missing"


def first_error(log: str) -> str:
    """Return the log from its first error on, up to the next job's; all of it without an error.

    Each failed job repeats the same.
    """
    study_error = re.search(r"^StudyError:\n((?:.+\n?)+)", log, re.MULTILINE)
    if study_error is not None:
        return f"llem: {study_error[1]}"
    lines = log.splitlines(keepends=True)
    text = "".join(dropwhile(lambda line: not re.search("Error|error:", line), lines)) or log
    repeats = list(re.finditer("^Error in rule ", text, re.MULTILINE))[1:]
    return text[: repeats[0].start()] if repeats else text
