"""Notifications that a study has ended, by webhook or by command.

A failed notification prints one line and changes neither the results nor the exit code.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.request import Request

import llenergymeasure
from llenergymeasure.config.notify import Event, NotifyConfig, address_problem
from llenergymeasure.machine.web import WebError, failure_kind, send, with_deadline
from llenergymeasure.plan import Plan
from llenergymeasure.processes import user_environment
from llenergymeasure.redact import without_secrets
from llenergymeasure.report.formatting import count_text
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.units import MISSING
from llenergymeasure.workflow.manifest import count_states, states

NEWS_VERSION = 1
MAX_LISTED_FAILURES = 5
_NO_FAILURE = ("completed", MISSING)
GRACE_S = 1.0
"""Lets a socket or a command reach its own limit first, which names the cause."""

Say = Callable[[str], None]


def _notification(plan: Plan, folder: StudyFolder, broken: str | None) -> dict[str, Any]:
    """Return the JSON that says how a study has just ended."""
    runs = states(plan, folder)
    counts, total = count_states(runs), count_text(len(runs), "run")
    completed = counts.get("completed", 0)
    event: Event = "finish" if completed == len(runs) else "failure"
    text = f"{plan.study}: {completed} of {total} completed"
    failures = [run for run in runs if run.get("error_class") or run["status"] not in _NO_FAILURE]
    return {
        "news_version": NEWS_VERSION,
        "event": event if broken is None else "circuit_break",
        "text": text if broken is None else f"{text}. {broken}",
        "study": plan.study,
        "study_design_hash": plan.study_design_hash,
        "runs": {"total": len(runs), **counts},
        "failures": failures[:MAX_LISTED_FAILURES],
        "reason": broken,
        "results": str(folder.path.absolute()),
        "host": socket.gethostname(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "llem_version": llenergymeasure.__version__,
    }


class NotNotifiedError(Exception):
    """A notification failed; the message holds no address and no secret."""


def warn_of_missing_variables(notify: NotifyConfig | None, say: Say) -> None:
    """Warn at a study's start of variables that are missing for its notification."""
    for name in () if notify is None else (notify.webhook_env, notify.token_env):
        if name is not None and not os.environ.get(name):
            say(f"notify: the environment variable {name} is not set, so nobody will be notified")


def notify_of_end(
    notify: NotifyConfig | None, plan: Plan, folder: StudyFolder, broken: str | None, say: Say
) -> None:
    """Notify of a study that has just ended; errors are printed in one line each and ignored.

    Args:
        notify: the study's section; None for no notification.
        plan: its plan.
        folder: its results.
        broken: why its circuit broke, if it did.
        say: gets the error messages.
    """
    if notify is None:
        return
    notification = _notification(plan, folder, broken)
    event = notification["event"]
    if not notify.wants(event):
        return
    content = json.dumps(notification, ensure_ascii=False).encode(errors="replace")
    for receiver, send_to in (("the webhook", _post), ("the command", _run_command)):
        try:
            with_deadline(notify.timeout_seconds, partial(send_to, notify, event, content), GRACE_S)
        except Exception as error:  # no error here may fail the study
            is_ours = isinstance(error, NotNotifiedError | WebError)
            reason = str(error) if is_ours else type(error).__name__
            reason = without_secrets(reason, extra_secrets=_secrets(notify))
            say(f"notify: {receiver} was not notified: {reason}")


def _post(notify: NotifyConfig, event: Event, content: bytes) -> None:
    address = notify.webhook
    if notify.webhook_env is not None:
        address = _environment_value(notify.webhook_env)
        problem = address_problem(address)
        if problem is not None:
            raise NotNotifiedError(f"the address in {notify.webhook_env} {problem}")
    if address is None:
        return
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"llenergymeasure/{llenergymeasure.__version__}",
        "X-Llem-Event": event,
    }
    if notify.token_env is not None:
        headers["Authorization"] = f"Bearer {_environment_value(notify.token_env)}"
    request = Request(address, content, headers, method="POST")  # noqa: S310 - checked above
    send(request, notify.timeout_seconds)


def _environment_value(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise NotNotifiedError(f"the environment variable {name} is not set")
    return value


def _run_command(notify: NotifyConfig, event: Event, content: bytes) -> None:
    if notify.command is None:
        return
    try:
        process = subprocess.Popen(
            notify.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=user_environment(LLEM_EVENT=event),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotNotifiedError(
            f"{notify.command[0]} cannot be run ({failure_kind(error)})"
        ) from None
    try:
        _, error_output = process.communicate(content, notify.timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        limit = f"{notify.timeout_seconds:g} s"
        raise NotNotifiedError(f"not done within {limit}, so ended") from None
    if process.returncode != 0:
        last_line = error_output.decode(errors="replace").split("\n")[-2:-1]
        raise NotNotifiedError(": ".join([f"it ended with {process.returncode}", *last_line]))


def _secrets(notify: NotifyConfig) -> Iterator[str | None]:
    """Yield the address and the token, from the study or the environment."""
    yield notify.webhook
    yield from (os.environ.get(name) for name in (notify.webhook_env, notify.token_env) if name)
