"""Why Snakemake failed when no run explains it, from its log and its jobs' logs."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from llenergymeasure.containers.images import failed_job_logs, why_not_started
from llenergymeasure.files import open_to_read
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import printable
from llenergymeasure.workflow.slurm_jobs import CHANGE_PROFILE, LEFT, NEVER_ENDS, NOTHING_LEFT

_LOOKED_AT_BYTES = 1 << 12
_SHOWN = 300
_SNAKEMAKES = "For further error details"
"""Begins Snakemake's addition to an executor's message, without a blank before it."""
_OF_NO_PROFILE = re.compile(
    r"contact|connect|socket|standby|temporarily|transmitted|munge|authentication|I/O error|Errno",
    re.IGNORECASE,
)
"""In errors of a SLURM that did not answer, or of a file that could not be written: changing the
profile does not help. Source: SLURM, src/common/slurm_errno.c.
"""


def reason(log: str) -> str:
    """Return the first error of sbatch, Apptainer or a job's shell in one line; else empty.

    Args:
        log: Snakemake's log.
    """
    refused = re.search(
        r"sbatch: error: .*(\nsbatch: .*)*|(?<=Job submission failed with exception: ).+",
        log.replace("Available accounts:\n", "Available accounts: "),  # as the executor says
    )
    if refused is not None:
        first, *more = refused[0].partition(_SNAKEMAKES)[0].rstrip("'.").split("\n")
        words = "; ".join([first, *(line.removeprefix("sbatch: error: ") for line in more)])
        return (
            _shown(words) if _OF_NO_PROFILE.search(words) else f"{_shown(words)}. {CHANGE_PROFILE}"
        )
    return why_not_started(log) or next(filter(None, map(_shells, failed_job_logs(log))), "")


def never_began(log: str) -> Iterator[tuple[str, str]]:
    """Yield the run of each failed job, ``EXPERIMENT/CYCLE``, and the reason if known."""
    submitted = dict(re.findall(r"(?m)^Job (\d+) (has been submitted .*)$", log))
    never = re.search(rf"(?m)^.*{NEVER_ENDS}.*", log)
    for after in re.split(r"(?m)^Error in rule measure:\n", log)[1:]:
        said = after.partition("\n    shell:")[0]
        named = re.search(
            r"jobid: (\d+)\n(?:    .*\n)*?    output: .*?(\w+/\d+)/result\.json", said
        )
        state = re.search(r"SLURM-job '(\d+)' failed, SLURM status is: '(?!FAILED)(\w+)'", said)
        words = f"SLURM says of its job {state[1]}: {state[2]}" if state else ""
        before = f"; before: {never[0]}" if words and never else ""
        if named is not None:
            its_log = f"Job {named[1]} {submitted.get(named[1])}\n{said}"
            yield named[2], reason(its_log) or f"{words}{before}"


def _shells(path: str) -> str:
    """Return the first line of a job's log, if the job ended before Snakemake started in it."""
    with suppress(OSError), open_to_read(path) as stream:
        text = stream.read(_LOOKED_AT_BYTES).decode(errors="replace").strip()
        if text and not re.search(r"^(SNAKEMAKE$|\s*host: )", text, re.MULTILINE | re.IGNORECASE):
            return f"{_shown(text.splitlines()[0])} ({path})"
    return ""


def _shown(words: str) -> str:
    return textwrap.shorten(printable(without_secrets(words)), _SHOWN, placeholder=" …")


def said_of_jobs(log: str) -> list[str]:
    """Return the log's lines about an earlier call's jobs, and about no job being left to run."""
    return re.findall(rf"^(?:{LEFT}|{NOTHING_LEFT}).*", log, re.MULTILINE)


def said_of_jobs_in(path: Path) -> list[str]:
    """Return the same of the log's file; nothing where it cannot be read just now."""
    with suppress(OSError):
        return said_of_jobs(path.read_text(errors="replace"))
    return []


def rules_words(log: str, folder: StudyFolder) -> str:
    """Return the text of the failed rules' own logs."""
    said = [
        path.read_text(errors="replace").strip()
        for rule in dict.fromkeys(re.findall(r"^Error in rule (\w+):", log, re.MULTILINE))
        for path in sorted((folder.path / "logs").glob(f"{rule}*.log"))
        if path.is_file()
    ]
    return "".join(f"{each}\n" for each in said if each)


def killed(on_cluster: bool) -> str:
    """Return the message for a Snakemake that was itself killed."""
    if on_cluster:
        return "Snakemake was killed; its jobs stay in the queue, and the next call ends them first"
    return "Snakemake was killed; the same call makes what is missing"


def its_error(log: str) -> str:
    """Return the log from its first error on, up to the next job's; all of it without an error.

    Each failed job repeats the same.
    """
    ours = re.search(r"^StudyError:\n((?:.+\n?)+)", log, re.MULTILINE)
    if ours is not None:
        return f"llem: {ours[1]}"
    lines = log.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if re.search("Error|error:", line)), 0)
    said = "".join(lines[first:])
    again = [found.start() for found in re.finditer("^Error in rule ", said, re.MULTILINE)][1:]
    return said[: again[0]] if again else said
