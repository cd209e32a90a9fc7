"""transformers' continuous batching behind the interface that engines' own servers have.

    python -m llenergymeasure.backends.pytorch.continuous_batching --port 8000 --config '{…}'

It loads the model as the pytorch backend does, random weights and quantised ones included, which
``transformers serve`` cannot, and answers streamed completions of token ids alone. Tokens are
not turned into text, as they are not in-process either, but for the marks of a model's thought.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
from typing import Any

from llenergymeasure.backends.pytorch.generation import generation_config
from llenergymeasure.backends.pytorch.loading import LoadedModel, load_model
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.redact import KEY_VARIABLE
from llenergymeasure.workload.thinking import MARKERS, ThinkingMarks

CPU_SEQUENCES = 64
"""Sequences that the cache on a CPU has room for: there, transformers would take all memory."""

CPU_BATCH_TOKENS = 1024
PAGE_TOKENS = 32

_RESPONSE_HEAD = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


class Batcher:
    """The model with transformers' own queue, scheduler and paged cache."""

    def __init__(self, config: ExperimentConfig, loaded: LoadedModel) -> None:
        from transformers import ContinuousBatchingConfig

        options: dict[str, Any] = {
            "allow_block_sharing": False,
            "drop_unsupported_processors": False,
            "seed": config.random_seed,
        }
        if config.pytorch is not None and config.pytorch.batch_size is not None:
            options["max_requests_per_batch"] = config.pytorch.batch_size
        if loaded.device.type == "cpu":
            synthetic = config.synthetic()
            longest = config.max_input_tokens + config.max_output_tokens
            if synthetic is not None:
                longest = max(longest, synthetic.input_len + synthetic.output_len)
            pages = -(-longest // PAGE_TOKENS) + 1
            options |= {
                "page_size": PAGE_TOKENS,
                "num_blocks": CPU_SEQUENCES * pages,
                "max_batch_tokens": CPU_BATCH_TOKENS,
                "use_async_batching": False,
            }
        settings = generation_config(config, config.max_output_tokens, loaded.eos_token_ids)
        settings.min_new_tokens = None  # it has no least length; an answer's end is a token too
        self._manager: Any = loaded.model.init_continuous_batching(
            generation_config=settings,
            continuous_batching_config=ContinuousBatchingConfig(**options),
        )
        marks = loaded.thinking or ThinkingMarks(frozenset(), frozenset())
        (begin, end), *_ = MARKERS
        self.markers = dict.fromkeys(marks.begins, begin) | dict.fromkeys(marks.ends, end)
        self.in_flight = self.received = 0

    def start(self) -> None:
        """Begin to work."""
        self._manager.start()

    def stop(self) -> None:
        """End; what is under way is dropped."""
        self._manager.stop(block=True, timeout=10.0)

    def add(self, prompt: list[int], max_tokens: int, answer: "Answer") -> None:
        """Queue a request; ``answer`` gets each token on the event loop."""
        self.received += 1
        name = f"request-{self.received}"
        self.in_flight += 1
        self._manager.register_result_handler(name, answer.send_new_tokens)
        self._manager.add_request(
            prompt, request_id=name, max_new_tokens=max_tokens, streaming=True
        )

    def waiting(self) -> int:
        """Return the requests that are not in a batch yet."""
        processor = getattr(self._manager, "batch_processor", None)
        return 0 if processor is None else len(processor.scheduler.waiting_requests)


class Answer:
    """One streamed answer."""

    def __init__(self, connection: "Connection", request: dict[str, Any], batcher: Batcher) -> None:
        self._connection, self._batcher = connection, batcher
        self._prompt_tokens = len(request["prompt"])
        self._model = request.get("model")
        self._sent_tokens, self._max_tokens = 0, int(request["max_tokens"])

    def send_new_tokens(self, output: Any) -> None:
        """Send the tokens that are new in a result of the batcher."""
        tokens = output.generated_tokens[self._sent_tokens :]
        self._sent_tokens += len(tokens)
        if tokens:
            text = "".join(self._batcher.markers.get(token, "") for token in tokens)
            self._event([{"index": 0, "text": text, "token_ids": tokens, "finish_reason": None}])
        if not output.is_finished():
            return
        self._batcher.in_flight -= 1
        if output.error:
            self._send({"error": {"message": str(output.error)}})
        else:
            usage = {"prompt_tokens": self._prompt_tokens, "completion_tokens": self._sent_tokens}
            reason = "length" if self._sent_tokens >= self._max_tokens else "stop"
            self._event([{"index": 0, "text": "", "token_ids": [], "finish_reason": reason}])
            self._event([], usage=usage)
        self._connection.end()

    def _event(self, choices: list[dict[str, Any]], **extra: Any) -> None:
        self._send({"object": "text_completion", "model": self._model, "choices": choices, **extra})

    def _send(self, content: dict[str, Any]) -> None:
        self._connection.chunk(b"data: " + json.dumps(content).encode() + b"\n\n")


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection from the client on this machine."""

    def __init__(self, batcher: Batcher) -> None:
        import httptools

        self._batcher = batcher
        self._key = f"Bearer {os.environ.get(KEY_VARIABLE, '')}".encode()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = self._body = b""
        self._authorization = ""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what the request is asked with."""
        if name.lower() == b"authorization":
            self._authorization = value.decode(errors="replace")

    def on_url(self, url: bytes) -> None:
        """Keep a part of the path."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Keep a part of the request."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer a whole request."""
        url, body, self._url, self._body = self._url, self._body, b"", b""
        authorization, self._authorization = self._authorization, ""
        if url == b"/health":
            self._respond(b"{}")
        elif url == b"/metrics":
            waiting = self._batcher.waiting()
            running = max(0, self._batcher.in_flight - waiting)
            metrics = f"llem:running {running}\nllem:waiting {waiting}\n"
            metrics += f"llem:requests {self._batcher.received}\n"
            self._respond(metrics.encode(), b"text/plain")
        elif not secrets.compare_digest(authorization.encode(), self._key):
            self._respond(b'{"error": "not the run\'s key"}', status=b"401 Unauthorized")
        elif url == b"/v1/completions":
            self._complete(body)
        else:
            self._respond(b'{"error": "no such path"}', status=b"404 Not Found")

    def _complete(self, body: bytes) -> None:
        request = json.loads(body)
        prompt = request.get("prompt")
        if not isinstance(prompt, list) or not request.get("stream"):
            error = b'{"error": "prompts are lists of token ids, and answers are streamed"}'
            self._respond(error, status=b"400 Bad Request")
            return
        self._transport.write(_STREAM_HEAD)
        self._batcher.add(prompt, int(request["max_tokens"]), Answer(self, request, self._batcher))

    def chunk(self, data: bytes) -> None:
        """Send a part of a streamed answer."""
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Send the end of a streamed answer."""
        self.chunk(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _respond(
        self, body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK"
    ) -> None:
        self._transport.write(_RESPONSE_HEAD % (status, kind, len(body)) + body)


async def _serve(batcher: Batcher, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(batcher), "127.0.0.1", port, backlog=4096)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


def main() -> None:
    """Load the model and answer until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", required=True, help="the experiment, as JSON")
    options = parser.parse_args()
    config = ExperimentConfig.model_validate_json(options.config)
    batcher = Batcher(config, load_model(config))
    batcher.start()
    try:
        asyncio.run(_serve(batcher, options.port))
    finally:
        batcher.stop()


if __name__ == "__main__":
    main()
