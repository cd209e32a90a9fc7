"""Notifying somebody that a study has ended: by webhook, by command, and never at its expense.

What fails is said in one line and changes nothing: not the results, not the exit code.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request

import llenergymeasure
from llenergymeasure.config.notify import Event, NotifyConfig, address_problem
from llenergymeasure.machine.web import WebError, send, within
from llenergymeasure.plan import Plan
from llenergymeasure.processes import ChildError, completed, users_environment
from llenergymeasure.redact import without_secrets
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.units import MISSING
from llenergymeasure.workflow.manifest import count, states

NEWS_VERSION = 1
LISTED_FAILURES = 5
GRACE_S = 1.0
"""For a socket to notice its own limit first, and say what it was."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class News:
    """How a study ended.

    Attributes:
        event: which of the three ends it was.
        study: its name.
        study_design_hash: of its experiments.
        folder: where its results are.
        counts: how many runs are in each state.
        failures: the first runs that have no result, each with its error.
        reason: why it was ended early; None if it was not.
    """

    event: Event
    study: str
    study_design_hash: str
    folder: Path
    counts: Mapping[str, int]
    failures: tuple[Mapping[str, Any], ...] = ()
    reason: str | None = None

    @classmethod
    def of(cls, plan: Plan, folder: StudyFolder, broken: str | None = None) -> "News":
        """Return what there is to report of a study that has ended, by a broken circuit or not."""
        runs = states(plan, folder)
        counts = count(runs)
        event: Event = "finish" if counts.get("completed") == len(runs) else "failure"
        open_ends = [run for run in runs if run["status"] not in ("completed", MISSING)]
        return cls(
            event if broken is None else "circuit_break",
            plan.study,
            plan.study_design_hash,
            folder.path,
            counts,
            tuple(open_ends[:LISTED_FAILURES]),
            broken,
        )

    def text(self) -> str:
        """Return it as one line for people."""
        total = sum(self.counts.values())
        done = f"{self.study}: {self.counts.get('completed', 0)} of {total} runs completed"
        return done if self.reason is None else f"{done}. {self.reason}"

    def document(self) -> dict[str, Any]:
        """Return it as the JSON that is sent."""
        return {
            "news_version": NEWS_VERSION,
            "event": self.event,
            "text": self.text(),
            "study": self.study,
            "study_design_hash": self.study_design_hash,
            "runs": {"total": sum(self.counts.values()), **self.counts},
            "failures": [dict(each) for each in self.failures],
            "reason": self.reason,
            "results": str(self.folder.absolute()),
            "host": socket.gethostname(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "llem_version": llenergymeasure.__version__,
        }


class NotNotifiedError(Exception):
    """Why somebody could not be notified; the message holds no address and no secret."""


def warn_of_missing_variables(notify: NotifyConfig | None, say: Say) -> None:
    """Say at a study's start what would keep anybody from being notified of its end."""
    for name in () if notify is None else (notify.webhook_env, notify.token_env):
        if name is not None and not os.environ.get(name):
            say(f"notify: the environment variable {name} is not set, so nobody will be notified")


def tell(notify: NotifyConfig | None, news: News, say: Say) -> None:
    """Notify whom the study names; what goes wrong is said in a line and passed over."""
    if notify is None or not notify.wants(news.event):
        return
    content = json.dumps(news.document())  # ASCII: a pipe takes the locale's encoding
    for who, way in (("the webhook", _post), ("the command", _run)):
        try:
            way(notify, news.event, content)
        except (NotNotifiedError, WebError, ChildError) as error:
            plain = without_secrets(str(error), also=_secrets(notify))
            say(f"notify: {who} was not notified: {plain}")
        except Exception as error:  # a study is worth more than its news
            say(f"notify: {who} was not notified: {type(error).__name__}")


def _post(notify: NotifyConfig, event: Event, content: str) -> None:
    address = notify.webhook
    if notify.webhook_env is not None:
        address = _variable(notify.webhook_env)
        wrong = address_problem(address)
        if wrong is not None:
            raise NotNotifiedError(f"the address in {notify.webhook_env} {wrong}")
    if address is None:
        return
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"llenergymeasure/{llenergymeasure.__version__}",
        "X-Llem-Event": event,
    }
    if notify.token_env is not None:
        headers["Authorization"] = f"Bearer {_variable(notify.token_env)}"
    request = Request(address, content.encode(), headers, method="POST")  # noqa: S310 - checked above
    within(notify.timeout_seconds, partial(send, request, notify.timeout_seconds), GRACE_S)


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise NotNotifiedError(f"the environment variable {name} is not set")
    return value


def _run(notify: NotifyConfig, event: Event, content: str) -> None:
    if notify.command is None:
        return
    variables = users_environment(LLEM_EVENT=event)
    limit_s = notify.timeout_seconds
    done = completed(notify.command, limit_s, given=content, environment=variables)
    if done.returncode != 0:
        last = "".join(f": {line}" for line in done.stderr.splitlines()[-1:])
        raise NotNotifiedError(f"it ended with {done.returncode}{last}")


def _secrets(notify: NotifyConfig) -> Iterator[str | None]:
    """Yield the address and the token, wherever they are given."""
    yield notify.webhook
    yield from (os.environ.get(name) for name in (notify.webhook_env, notify.token_env) if name)
