"""Telling somebody that a study has ended: by webhook, by command, and never at its expense.

What cannot be told is said in one line and changes nothing: not the results, not the exit code.
"""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

import llenergymeasure
from llenergymeasure.config.loopback import is_loopback
from llenergymeasure.config.notify import Event, NotifyConfig, address_problem
from llenergymeasure.plan import Plan
from llenergymeasure.processes import users_environment
from llenergymeasure.results.layout import StudyFolder
from llenergymeasure.units import MISSING
from llenergymeasure.workflow.manifest import count, states

NEWS_VERSION = 1
LISTED_FAILURES = 5

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
        reason: why it was ended early; null if it was not.
    """

    event: Event
    study: str
    study_design_hash: str
    folder: Path
    counts: Mapping[str, int]
    failures: tuple[Mapping[str, Any], ...] = field(default=())
    reason: str | None = None

    @classmethod
    def of(cls, plan: Plan, folder: StudyFolder, broken: str | None = None) -> "News":
        """Return what there is to tell of a study that has just ended.

        Args:
            plan: its plan.
            folder: its results.
            broken: why its circuit broke, if it did.
        """
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


class NotToldError(Exception):
    """Why somebody could not be told; the message holds no address and no secret."""


def warn_of_missing_variables(notify: NotifyConfig | None, say: Say) -> None:
    """Say at a study's start what would keep its end from being told."""
    if notify is None:
        return
    for name in (notify.webhook_env, notify.token_env):
        if name is not None and not os.environ.get(name):
            say(f"notify: the environment variable {name} is not set, so nobody will be told")


def tell(notify: NotifyConfig | None, news: News, say: Say) -> None:
    """Tell whom the study names; what goes wrong is said in a line and passed over.

    Args:
        notify: whom to tell, and of what; null for nobody.
        news: what to tell.
        say: hears what could not be told.
    """
    if notify is None or not notify.wants(news.event):
        return
    content = json.dumps(news.document(), ensure_ascii=False).encode()
    for who, way in (("the webhook", _post), ("the command", _run)):
        try:
            way(notify, news.event, content)
        except NotToldError as error:
            say(f"notify: {who} was not told: {_without_secrets(str(error), notify)}")
        except Exception as error:  # a study is worth more than its news
            say(f"notify: {who} was not told: {type(error).__name__}")


def _post(notify: NotifyConfig, event: Event, content: bytes) -> None:
    address = notify.webhook
    if notify.webhook_env is not None:
        address = _variable(notify.webhook_env)
        wrong = address_problem(address)
        if wrong is not None:
            raise NotToldError(f"the address in {notify.webhook_env} {wrong}")
    if address is None:
        return
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"llenergymeasure/{llenergymeasure.__version__}",
        "X-Llem-Event": event,
    }
    if notify.token_env is not None:
        headers["Authorization"] = f"Bearer {_variable(notify.token_env)}"
    request = Request(address, content, headers, method="POST")  # noqa: S310 - checked above
    _within(notify.timeout_seconds, lambda: _send(request, notify.timeout_seconds))


def _variable(name: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value or not value.isprintable():
        raise NotToldError(f"the environment variable {name} is not set")
    return value


def _send(request: Request, timeout_s: float) -> None:
    host = urlsplit(request.full_url).hostname or ""
    try:
        with _opener(host).open(request, timeout=timeout_s):
            return
    except HTTPError as error:
        error.close()
        raise NotToldError(f"{host} answered {error.code}") from None
    except URLError as error:
        raise NotToldError(f"{host} cannot be reached ({_kind(error.reason)})") from None
    except OSError as error:
        raise NotToldError(f"{host} cannot be reached ({_kind(error)})") from None


def _kind(reason: object) -> str:
    """Return what kind of failure it was; an error's own words may hold the address."""
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__


def _opener(host: str) -> OpenerDirector:
    """Return what sends to ``host``: no redirect is followed, no proxy used on this machine."""
    handlers: list[Any] = [_NoRedirect()]
    if is_loopback(host):
        handlers.append(ProxyHandler({}))
    return build_opener(*handlers)


class _NoRedirect(HTTPRedirectHandler):
    """Follows nothing: whoever is told must be whom the study names."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> Request | None:
        """Refuse."""
        del req, msg, headers
        fp.close()
        there = urlsplit(newurl).hostname or "nowhere"
        raise NotToldError(f"it redirects ({code}) to {there}, and no redirect is followed")


def _within(timeout_s: float, work: Callable[[], None]) -> None:
    """Do ``work`` in so many seconds altogether: a socket's own limit starts anew with each byte.

    Raises:
        NotToldError: it took longer, or raised this itself.
    """
    raised: list[BaseException] = []

    def watched() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=watched, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise NotToldError(f"no answer within {timeout_s:g} s")
    if raised:
        raise raised[0]


def _run(notify: NotifyConfig, event: Event, content: bytes) -> None:
    if notify.command is None:
        return
    try:
        process = subprocess.Popen(
            notify.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=users_environment(LLEM_EVENT=event),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise NotToldError(f"{notify.command[0]} cannot be run ({_kind(error)})") from None
    try:
        _, told = process.communicate(content, notify.timeout_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise NotToldError(f"not done within {notify.timeout_seconds:g} s, so ended") from None
    if process.returncode != 0:
        last = told.decode(errors="replace").strip().splitlines()[-1:]
        raise NotToldError(f"it ended with {process.returncode}{''.join(f': {x}' for x in last)}")


def _without_secrets(text: str, notify: NotifyConfig) -> str:
    """Return ``text`` without the address and the token, whoever put them there."""
    named = (name for name in (notify.webhook_env, notify.token_env) if name is not None)
    secrets: Iterable[str | None] = (notify.webhook, *map(os.environ.get, named))
    for secret in secrets:
        if secret and secret.strip():
            text = text.replace(secret.strip(), "…")
    return text
