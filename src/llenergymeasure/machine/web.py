"""One exchange over HTTP within bounds of bytes and time, whose errors hold no address or secret.

No redirect is followed: whoever is asked must be whom the user names. On this machine no proxy is
used.
"""

import threading
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from llenergymeasure.config.servers import is_loopback

Result = TypeVar("Result")


class WebError(Exception):
    """Why there was no exchange; the message holds no address and no secret."""


def send(request: Request, timeout_s: float, max_bytes: int = 0) -> bytes:
    """Send a request and return the answer's body.

    Args:
        request: its address has been checked.
        timeout_s: for each step; it starts again with each byte: :func:`within` limits the whole.
        max_bytes: more of an answer is refused; with 0 nothing of it is read.

    Raises:
        WebError: there was no answer in time, it was an error, or it was too long.
    """
    host = urlsplit(request.full_url).hostname or ""
    handlers: list[Any] = [_NoRedirect(), *([ProxyHandler({})] if is_loopback(host) else [])]
    try:
        with build_opener(*handlers).open(request, timeout=timeout_s) as response:
            body: bytes = response.read(max_bytes + 1) if max_bytes else b""
    except HTTPError as error:
        error.close()
        raise WebError(f"{host} answered {error.code}") from None
    except URLError as error:
        raise WebError(f"{host} cannot be reached ({failure_kind(error.reason)})") from None
    except (OSError, HTTPException) as error:
        raise WebError(f"{host} cannot be reached ({failure_kind(error)})") from None
    if len(body) > max_bytes:
        raise WebError(f"{host} answered more than {max_bytes} bytes")
    return body


def failure_kind(reason: object) -> str:
    """Return what kind of failure it was; an error's own words may hold the address."""
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason).__name__


class _NoRedirect(HTTPRedirectHandler):
    """Follows nothing."""

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
        target = urlsplit(newurl).hostname or "nowhere"
        raise WebError(f"it redirects ({code}) to {target}, and no redirect is followed")


def with_deadline(timeout_s: float, work: Callable[[], Result], grace_s: float = 0.0) -> Result:
    """Do ``work`` in so many seconds altogether: a socket's own limit starts again with each byte.

    Args:
        timeout_s: how long it may take.
        work: what is done, in a thread of its own; what it raises is raised here.
        grace_s: how much longer it gets to notice that limit by itself, and say what it was at.

    Raises:
        WebError: it took longer.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run_work() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run_work, daemon=True)
    thread.start()
    thread.join(timeout_s + grace_s)
    if thread.is_alive():
        raise WebError(f"no answer within {timeout_s:g} s")
    if errors:
        raise errors[0]
    return results[0]
