"""Why Snakemake failed where no run explains it, out of its log and those of its jobs."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import suppress

from llenergymeasure.containers.images import failed_job_logs, why_not_started
from llenergymeasure.files import open_to_read
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.screen import printable
from llenergymeasure.workflow.slurm_jobs import CHANGE_PROFILE, LEFT, NEVER_ENDS, NOTHING_LEFT

_LOOKED_AT_BYTES = 1 << 12
_SHOWN = 300
_SNAKEMAKES = "For further error details"
"""Begins what Snakemake adds to an executor's words, without a blank."""
_OF_NO_PROFILE = re.compile(
    r"contact|connect|socket|standby|temporarily|transmitted|munge|authentication|I/O error|Errno",
    re.IGNORECASE,
)
"""In words of a SLURM that did not answer, or of a file that could not be written: no profile
changes that. Source: SLURM, src/common/slurm_errno.c.
"""


def reason(log: str) -> str:
    """Return in one line what was said first: by sbatch, Apptainer or a job's shell; else nothing.

    Args:
        log: what Snakemake said.
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
    """Yield the run of each job that failed, ``EXPERIMENT/CYCLE``, and why, as far as is known."""
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
    """Return the first line of a job's log, where the job ended before Snakemake's first word."""
    with suppress(OSError), open_to_read(path) as stream:
        text = stream.read(_LOOKED_AT_BYTES).decode(errors="replace").strip()
        if text and not re.search(r"^(SNAKEMAKE$|\s*host: )", text, re.MULTILINE | re.IGNORECASE):
            return f"{_shown(text.splitlines()[0])} ({path})"
    return ""


def _shown(words: str) -> str:
    return textwrap.shorten(printable(without_secrets(words)), _SHOWN, placeholder=" …")


def said_of_jobs(log: str) -> list[str]:
    """Return what was said of an earlier call's jobs, and where none was left that could run."""
    return re.findall(rf"^(?:{LEFT}|{NOTHING_LEFT}).*", log, re.MULTILINE)


def rules_words(log: str, folder: StudyFolder) -> str:
    """Return what the rules that failed have said in their own logs."""
    said = [
        path.read_text(errors="replace").strip()
        for rule in dict.fromkeys(re.findall(r"^Error in rule (\w+):", log, re.MULTILINE))
        for path in sorted((folder.path / "logs").glob(f"{rule}*.log"))
        if path.is_file()
    ]
    return "".join(f"{each}\n" for each in said if each)


def killed(on_cluster: bool) -> str:
    """Return what is left where Snakemake itself was killed, which then says nothing."""
    if on_cluster:
        return "Snakemake was killed; its jobs stay in the queue, and the next call ends them first"
    return "Snakemake was killed; the same call makes what is missing"


def its_error(log: str) -> str:
    """Return what was said of the first error, a scheduler's too; all if none was named.

    Each job that fails says the same again.
    """
    ours = re.search(r"^StudyError:\n((?:.+\n?)+)", log, re.MULTILINE)
    if ours is not None:
        return f"llem: {ours[1]}"
    lines = log.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if re.search("Error|error:", line)), 0)
    said = "".join(lines[first:])
    again = [found.start() for found in re.finditer("^Error in rule ", said, re.MULTILINE)][1:]
    return said[: again[0]] if again else said
