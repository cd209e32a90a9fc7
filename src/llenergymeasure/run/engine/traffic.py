"""Sends traffic: open loop at planned times, or closed loop by users who wait for answers."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from llenergymeasure.backends.serving.client import StreamingClient
from llenergymeasure.backends.serving.exchange import Exchange, Outgoing
from llenergymeasure.units import NS_PER_S
from llenergymeasure.workload.requests import Request
from llenergymeasure.workload.traffic_prompts import TrafficPrompts, Turn

FAILED_PAUSE_NS = NS_PER_S
"""How long a closed loop's user waits after a failed request."""

_MAKE_EVERY_S = 0.001
"""Between two requests that are made ahead: others' bytes get their time."""


@dataclass(frozen=True)
class SentRequest:
    """A request of the traffic and its answer."""

    turn: Turn
    exchange: Exchange

    @property
    def lengths(self) -> tuple[int, int]:
        """The tokens of its prompt and answer, as the server counted them."""
        return self.exchange.input_tokens or 0, self.exchange.output_tokens or 0


class Traffic:
    """All requests of a run, from the first that is sent to the last that is answered.

    No request waits for another's answer, except a conversation's next turn and a closed loop's
    user: they follow that answer and the pause after it.

    Args:
        client: sends.
        prompts: makes the requests.
        encode: makes a request ready to send.
        timeout_s: a request without a whole answer after this long has failed.
    """

    def __init__(
        self,
        client: StreamingClient,
        prompts: TrafficPrompts,
        encode: Callable[[Request], Outgoing],
        timeout_s: float,
    ) -> None:
        self._client = client
        self._prompts = prompts
        self._encode = encode
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._plan: list[tuple[int, Turn, Outgoing]] = []
        self._next_index = 0
        self._stopped = False
        self._conversations = count()
        self._ready: deque[tuple[Turn, Outgoing]] = deque()
        self._max_ready = 0
        self._is_making = False
        self._open_count = 0
        self.sent: list[SentRequest] = []
        self.first_ns: int | None = None
        self.users = 0

    @property
    def planned(self) -> int:
        """Requests whose times are settled."""
        return len(self._plan)

    def prepare(self, offsets_s: Sequence[float]) -> None:
        """Make every first turn ready to send, so that sending costs as little as it can."""
        for number, offset_s in enumerate(offsets_s):
            turn = self._prompts.turn(number)
            self._plan.append((round(offset_s * NS_PER_S), turn, self._encode(turn.request)))

    def prepare_closed(self, users: int) -> None:
        """Make each user's first two requests ready to send; further ones are made between.

        Users in step are answered all at once: what makes the next request costs then is the
        client's own, up to a millisecond a user, and not to be taken for the server's.
        """
        self._max_ready = 2 * users
        self._ready.extend(self._make_request() for _ in range(self._max_ready))

    def _make_request(self) -> tuple[Turn, Outgoing]:
        turn = self._prompts.turn(next(self._conversations))
        return turn, self._encode(turn.request)

    def _make_ahead(self) -> None:
        self._is_making = not self._stopped and len(self._ready) < self._max_ready
        if self._is_making:
            self._ready.append(self._make_request())
            self._loop.call_later(_MAKE_EVERY_S, self._make_ahead)

    def start_open(self, start_ns: int) -> None:
        """Send the prepared requests, each at its time after ``start_ns``."""
        self.first_ns = start_ns
        self._plan = [(start_ns + offset, turn, body) for offset, turn, body in self._plan]
        self._schedule()

    def start_closed(self, start_ns: int, users: int) -> None:
        """Start this many users, as prepared; each sends again after its answer and its pause."""
        self.first_ns, self.users = start_ns, users
        for _ in range(users):
            self._begin_conversation(start_ns, pause=False)

    def stop(self) -> None:
        """Send nothing more; requests under way continue."""
        self._stopped = True

    async def drain(self, timeout_s: float) -> None:
        """Wait until every request has been answered or has failed."""
        deadline = time.monotonic() + timeout_s
        while self._open_count and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    def _schedule(self) -> None:
        if self._next_index < len(self._plan):
            self._loop.call_at(self._plan[self._next_index][0] / NS_PER_S, self._send_due)

    def _send_due(self) -> None:
        """Send every request whose time has come, late ones too, without waiting for answers."""
        now_ns = time.monotonic_ns()
        while not self._stopped and self._next_index < len(self._plan):
            planned_ns, turn, body = self._plan[self._next_index]
            if planned_ns > now_ns:
                break
            self._next_index += 1
            self._send(turn, body, planned_ns)
        if not self._stopped:
            self._schedule()

    def _send(self, turn: Turn, body: Outgoing, planned_ns: int, due_ns: int = 0) -> None:
        exchange = Exchange(turn.request.index, planned_ns, due_ns)
        sent = SentRequest(turn, exchange)
        self.sent.append(sent)
        self._open_count += 1
        self._client.stream(exchange, body, self._timeout_s, lambda _: self._on_answer(sent))

    def _on_answer(self, sent: SentRequest) -> None:
        self._open_count -= 1
        turn = sent.turn
        next_number = turn.turn + 1
        if next_number < turn.turns and sent.exchange.failure is None:
            pause_s = self._prompts.think_s(turn.conversation, next_number)
            next_turn = self._prompts.turn(turn.conversation, next_number)
            body = self._encode(next_turn.request)
            self._send_later(sent.exchange.end_ns, pause_s, next_turn, body)
        elif self.users:
            pause_ns = 0 if sent.exchange.failure is None else FAILED_PAUSE_NS
            self._begin_conversation(sent.exchange.end_ns + pause_ns, pause=True)

    def _begin_conversation(self, after_ns: int, *, pause: bool) -> None:
        if self._stopped:
            return
        turn, body = self._ready.popleft() if self._ready else self._make_request()
        if not self._is_making:
            self._is_making = True
            self._loop.call_later(_MAKE_EVERY_S, self._make_ahead)
        pause_s = self._prompts.think_s(turn.conversation, 0) if pause else 0.0
        self._send_later(after_ns, pause_s, turn, body)

    def _send_later(self, after_ns: int, pause_s: float, turn: Turn, body: Outgoing) -> None:
        """Send a request after an answer and a pause, and not before the answer is read.

        Reading takes this client 25 µs a token, which must not count as the server's delay.
        """
        if self._stopped:
            return
        due_ns = after_ns + round(pause_s * NS_PER_S)
        planned_ns = max(due_ns, time.monotonic_ns())
        send_s = planned_ns / NS_PER_S
        self._loop.call_at(send_s, self._send_unless_stopped, turn, body, planned_ns, due_ns)

    def _send_unless_stopped(
        self, turn: Turn, body: Outgoing, planned_ns: int, due_ns: int
    ) -> None:
        if not self._stopped:
            self._send(turn, body, planned_ns, due_ns)
