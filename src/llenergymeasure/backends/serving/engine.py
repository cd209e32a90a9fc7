"""An engine behind its own server: loaded, warmed up and closed as any other engine is."""

import asyncio
import json
import math
import re
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llenergymeasure.backends.base import Backend, Completion, Engine, ServerCommand
from llenergymeasure.backends.common import jsonable
from llenergymeasure.backends.serving.client import StreamingClient, requested_tokens
from llenergymeasure.backends.serving.exchange import Exchange, Outgoing
from llenergymeasure.backends.serving.process import ServerProcess, key_for
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import ONE_USER
from llenergymeasure.errors import BackendError
from llenergymeasure.workload.models.resolve import resolve_model
from llenergymeasure.workload.requests import Request
from llenergymeasure.workload.tokens import Tokenizer, thinking_marks
from llenergymeasure.workload.traffic_prompts import TrafficPrompts

WARM_UP_FIRST = 1 << 40
"""Conversations of the warm-up, far from the traffic's: no cache may hold what that will ask."""

WARM_UP_AT_ONCE = 8
WARM_UP_BATCHES = 16

_POLL_S = 0.1
_MAX_DEPTH = 32
"""Levels of a server's own settings that are recorded."""

T = TypeVar("T")


def reuse_server(
    previous: "ServedEngine", backend: Backend, config: ExperimentConfig, prompts: TrafficPrompts
) -> "ServedEngine | None":
    """Return the server of the run before for the next one; end it where that wants another."""
    port = urlsplit(previous.command.base_url).port
    command = backend.server(config, port or 0)
    running = previous.command
    if (command.argv, command.environment) != (running.argv, running.environment):
        previous.close()
        return None
    return ServedEngine(command, config, previous.devices, prompts, previous.detach_server())


class ServedEngine(Engine):
    """A server that answers, and the client that asks.

    Args:
        command: how it is started and asked.
        config: the experiment.
        devices: UUIDs of the GPUs it works on.
        prompts: the traffic's requests.
        process: the server, where it answers already; started if not given.
    """

    def __init__(
        self,
        command: ServerCommand,
        config: ExperimentConfig,
        devices: tuple[str, ...],
        prompts: TrafficPrompts,
        process: ServerProcess | None = None,
    ) -> None:
        self.command, self.prompts = command, prompts
        self.serving = config.serving or ONE_USER
        self.devices = devices
        users = self.serving.concurrency
        self.batch_size: int | None = min(users or WARM_UP_AT_ONCE, WARM_UP_AT_ONCE)
        chat = self.serving.endpoint == "chat"
        self._path = "/chat/completions" if chat else "/completions"
        needs_text = chat or not command.takes_token_ids
        self._text = _TextPrompts(config, chat=chat) if needs_text else None
        self._is_users_server = config.openai is not None
        is_synthetic = config.synthetic() is not None
        self._thinking = None if is_synthetic else thinking_marks(resolve_model(config))
        self._answered = self._failed = 0
        self.answered_all = True
        """Whether it has answered all that it was asked."""
        key = key_for(command)
        # First, as it raises the limit of open files, which a server of ours needs too.
        self.client = StreamingClient(command.base_url, key)
        self._process = process or ServerProcess(command, key)
        self._runner = asyncio.Runner()
        self._earlier_requests = 0.0
        try:
            if command.ready_once_answered and process is None:
                self._wait_for_first_answer()
            answered_requests = self.run(self.gauges()).get("requests", 0.0)
            self._earlier_requests = max(0.0, answered_requests - self.client.requested_answers)
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the client's event loop."""
        return self._runner.run(work)

    def warmup_requests(self) -> list[Request]:
        """Return requests like the traffic's that none of it repeats."""
        count = (self.batch_size or 1) * WARM_UP_BATCHES
        return [self.prompts.turn(WARM_UP_FIRST + number).request for number in range(count)]

    @property
    def sends_token_ids(self) -> bool:
        """Whether prompts go out as token ids, so that their length is known."""
        return self._text is None

    def expected_input_tokens(self, request: Request) -> int | None:
        """Return how many tokens the tokenizer makes of what is sent."""
        if self._text is None:
            return len(request.prompt_token_ids)
        return self._text.count(request)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Ask all at once and return the answers in their order, less those that failed.

        Raises:
            BackendError: of all requests so far more failed than were answered.
        """
        exchanges = self._runner.run(self._ask(requests))
        successes = [exchange for exchange in exchanges if exchange.failure is None]
        self._answered += len(successes)
        self._failed += len(exchanges) - len(successes)
        self.answered_all &= not self._failed
        if self._failed > self._answered:
            failed = next(exchange for exchange in exchanges if exchange.failure is not None)
            raise BackendError(f"the server failed: {self._describe(failed)}")
        return [
            Completion(
                index=exchange.index,
                input_tokens=exchange.input_tokens or 0,
                output_tokens=exchange.output_tokens or 0,
                start_monotonic_ns=exchange.sent_ns,
                end_monotonic_ns=exchange.end_ns,
                first_token_monotonic_ns=exchange.first_ns,
                finish_reason=exchange.finish_reason,
                thinking_tokens=exchange.thinking_tokens,
            )
            for exchange in successes
        ]

    def resolved_config(self) -> dict[str, Any]:
        """Return how the server was started, and the settings it says are in force."""
        command = self.command
        return {
            "server": {
                "argv": list(command.argv),
                "environment": dict(command.environment),
                "base_url": command.base_url,
                "body": dict(command.body),
            },
            **command.settings,
            "settings": self._runner.run(self._settings()),
        }

    async def gauges(self) -> dict[str, float]:
        """Return the server's queue and cache; empty where it does not say.

        ``foreign_requests`` are those that it has answered beyond what this client has asked.
        """
        command = self.command
        if command.metrics_path is None or not command.gauges:
            return {}
        try:
            status, page = await self.client.get(command.metrics_path)
        except (OSError, TimeoutError):
            return {}
        if status != 200:
            return {}
        gauges = read_gauges(page.decode(errors="replace"), command.gauges)
        if "requests" in gauges:
            foreign = gauges["requests"] - self._earlier_requests - self.client.requested_answers
            gauges["foreign_requests"] = max(0.0, foreign)
        return gauges

    def exit_code(self) -> int | None:
        """Return the server's exit code if it has ended; None while it lives."""
        return self._process.exit_code()

    def close(self) -> None:
        """End the server and close all connections."""
        try:
            self.detach_server()
        finally:
            self._process.close()

    def detach_server(self) -> ServerProcess:
        """Close all connections and return the server, which goes on."""
        try:
            self._runner.run(self.client.close())
        finally:
            self._runner.close()
        return self._process

    def _wait_for_first_answer(self) -> None:
        """Ask for one token until it comes: some servers load the model when they are asked."""
        request = replace(self.prompts.turn(WARM_UP_FIRST - 1).request, max_output_tokens=1)
        deadline = time.monotonic() + self.command.ready_limit_s
        while True:
            (exchange,) = self.run(self._ask([request]))
            if exchange.failure is None:
                return
            loading = f"{exchange.message}".startswith("HTTP 503")
            if self.exit_code() is not None or not loading or time.monotonic() > deadline:
                raise BackendError(f"the server answers no request: {self._describe(exchange)}")
            time.sleep(_POLL_S)

    def _describe(self, failed: Exchange) -> str:
        """Return how a request failed, and what to try where the server may take texts alone."""
        description = f"{failed.failure}: {failed.message}"
        bad_request = description.startswith(("refused: HTTP 400", "refused: HTTP 422"))
        if not (bad_request and self._text is None and self._is_users_server):
            return description
        return f"{description}; the prompts are token ids: try openai.prompts: text"

    async def _ask(self, requests: Sequence[Request]) -> list[Exchange]:
        futures = []
        for request in requests:
            future: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
            futures.append(future)
            exchange, outgoing = Exchange(request.index, time.monotonic_ns()), self.encode(request)
            on_end = partial(_set_result, future)
            self.client.stream(exchange, outgoing, self.serving.timeout_s, on_end)
        return list(await asyncio.gather(*futures))

    async def _settings(self) -> Any:
        if self.command.settings_path is None:
            return None
        try:
            status, page = await self.client.get(self.command.settings_path, timeout_s=30.0)
            if status != 200:
                return f"the server answers {status}"
            return jsonable(json.loads(page), _MAX_DEPTH)
        except (OSError, TimeoutError, ValueError, RecursionError) as error:
            return f"not had: {error or type(error).__name__}"

    def encode(self, request: Request) -> Outgoing:
        """Return a request ready to send."""
        max_tokens, overrides = request.max_output_tokens, self.command.body
        fields: dict[str, Any] = {"model": self.command.model}
        if self._text is None:
            fields["prompt"] = request.prompt_token_ids
        else:
            fields |= self._text.prompt_fields(request)
        fields |= {"max_tokens": max_tokens, "stream_options": {"include_usage": True}, **overrides}
        if isinstance(overrides.get("stream_options"), Mapping):
            fields["stream_options"] = {"include_usage": True, **overrides["stream_options"]}
        fields = {name: value for name, value in fields.items() if value is not None}
        if isinstance(fields.get("min_tokens"), int):  # servers refuse a least beyond the most
            fields["min_tokens"] = min(fields["min_tokens"], requested_tokens(fields, max_tokens))
        outgoing = self.client.request(self._path, {**fields, "stream": True}, max_tokens)
        opens = bool(self._thinking and self._thinking.opens_in(request.prompt_token_ids))
        return replace(outgoing, opens_thought=opens)


def _set_result(future: "asyncio.Future[Exchange]", exchange: Exchange) -> None:
    if not future.done():  # whoever waited may have been interrupted
        future.set_result(exchange)


class _TextPrompts:
    """Prompts as text or messages, for servers and interfaces that take no token ids."""

    def __init__(self, config: ExperimentConfig, *, chat: bool) -> None:
        self._tokenizer, self._chat = Tokenizer(config), chat
        arguments = config.chat.arguments if config.chat else None
        self._template_fields = {"chat_template_kwargs": arguments} if arguments else {}

    def prompt_fields(self, request: Request) -> dict[str, Any]:
        if self._chat:
            return {"messages": self._messages(request), **self._template_fields}
        return {"prompt": self._tokenizer.bare_text(request.prompt_token_ids)}

    def count(self, request: Request) -> int | None:
        from llenergymeasure.workload.datasets.record import Record

        if self._chat:
            record = Record(1, "", messages=tuple(self._messages(request)))
        else:
            record = Record(1, "", self._tokenizer.bare_text(request.prompt_token_ids))
        return len(self._tokenizer.encode([record])[0])

    def _messages(self, request: Request) -> Sequence[Mapping[str, str]]:
        text = self._tokenizer.bare_text
        return request.messages or [{"role": "user", "content": text(request.prompt_token_ids)}]


def read_gauges(text: str, names: Mapping[str, str]) -> dict[str, float]:
    """Return the gauges found in a page of metrics, by our names.

    The format is Prometheus' text exposition, 0.0.4. A gauge with several sets of labels (one an
    engine process) adds up where it counts requests, and is averaged where it is a share.
    """
    text = f"\n{text}"
    gauges = {}
    for name, metric in names.items():
        samples = re.findall(rf"\n{re.escape(metric)}(?=[ \t{{])([^\n]*)", text)
        values = [value for value in map(_sample_value, samples) if value is not None]
        if values:
            gauges[name] = sum(values) / (len(values) if name == "kv_cache_share" else 1)
    return gauges


def _sample_value(sample: str) -> float | None:
    """Return what follows a sample's labels, which may hold any sign, and precedes an exemplar."""
    for text in (sample.rpartition(" # {")[0], sample):
        with suppress(ValueError, IndexError):
            value = float(text.rpartition("}")[2].split()[0])
            return value if math.isfinite(value) else None
    return None
