"""What benchmark tools write of what they did: how many tokens and requests, and when.

One reader a format. Some formats say to the millisecond when the work began, some to the second,
some not at all: what a file leaves open is a range of moments, and the energy's interval holds it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from llenergymeasure.errors import ConfigurationError
from llenergymeasure.units import NS_PER_S

Document = Mapping[str, Any]

_MAX_RAMP_S = 0.01
_WINDOW_STEP_NS = NS_PER_S // 5
_MAX_WINDOWS = 101
"""How finely the windows are looked at that a benchmark may have had, and at how many."""


@dataclass(frozen=True)
class CommandTimes:
    """When the command ran, and how the wall clock stood to ours.

    Attributes:
        started_ns, ended_ns: of the command, CLOCK_MONOTONIC.
        ahead_ns: by how much the wall clock was ahead of that, at least and at most.
        written_ns: when the file was last written.
    """

    started_ns: int
    ended_ns: int
    ahead_ns: tuple[int, int]
    written_ns: int

    def from_wall_clock(self, earliest_s: float, latest_s: float | None = None) -> tuple[int, int]:
        """Return a range of wall clock times, in s since 1970, on our clock."""
        least_ns, most_ns = self.ahead_ns
        latest_s = earliest_s if latest_s is None else latest_s
        return round(earliest_s * NS_PER_S) - most_ns, round(latest_s * NS_PER_S) - least_ns


@dataclass(frozen=True)
class Benchmark:
    """One benchmark that a tool reports.

    Attributes:
        tool: which wrote it.
        description: what it says of itself: the model, the load.
        start_range_ns: when its work began, at the earliest and at the latest, CLOCK_MONOTONIC.
        duration_ns: how long it took.
        requests: how many were answered; of a tool that sends none, its repetitions.
        requests_worked: of how many the work was done, with parts of those that were cut off.
        failed_requests: how many were not; None where the file does not say.
        input_tokens, output_tokens: of them all.
        in_process: whether the tool computes itself, and no server for it.
        advice: what makes the file say when the work began; None where it does.
    """

    tool: str
    description: str
    start_range_ns: tuple[int, int]
    duration_ns: int
    requests: int
    failed_requests: int | None
    input_tokens: int
    output_tokens: int
    in_process: bool = False
    advice: str | None = None
    requests_worked: float | None = None

    @property
    def window(self) -> tuple[int, int]:
        """The middle one of the windows that it may have had, CLOCK_MONOTONIC."""
        start_ns = sum(self.start_range_ns) // 2
        return start_ns, start_ns + self.duration_ns

    @property
    def unsure_s(self) -> float:
        """How far its true window may be from that one."""
        return (self.start_range_ns[1] - self.start_range_ns[0]) / 2 / NS_PER_S

    def windows(self) -> list[tuple[int, int]]:
        """Return windows that it may have had, evenly over all of them."""
        first_ns, last_ns = self.start_range_ns
        width_ns = last_ns - first_ns
        count = min(_MAX_WINDOWS, 2 + width_ns // _WINDOW_STEP_NS) if width_ns else 1
        starts_ns = [first_ns + width_ns * n // max(count - 1, 1) for n in range(count)]
        return [(start_ns, start_ns + self.duration_ns) for start_ns in starts_ns]


class BenchmarkFile:
    """The file that a benchmark is to write, looked at before it and after it."""

    def __init__(self, path: Path) -> None:
        """Take the file as it is before the benchmark: what is there is of an earlier one.

        Raises:
            ConfigurationError: its folder is not there, or it cannot be read.
        """
        self._path = path
        if not path.parent.is_dir():
            raise self._error(f"the folder {path.parent} is not there")
        self._old_content = self._bytes() if path.exists() else b""
        self._old_mtime_ns = path.stat().st_mtime_ns if path.exists() else None

    def read(self, started_ns: int, ended_ns: int, ahead_ns: Sequence[int]) -> list[Benchmark]:
        """Return the benchmarks that the command has written of.

        Args:
            started_ns: start of the command, CLOCK_MONOTONIC.
            ended_ns: its end.
            ahead_ns: by how much the wall clock was ahead of that, looked at before and after.

        Raises:
            ConfigurationError: there is nothing new, or it is not of a format that is known.
        """
        mtime_ns = self._path.stat().st_mtime_ns if self._path.exists() else None
        if mtime_ns is None or mtime_ns == self._old_mtime_ns:
            raise self._error("the command did not write it; name the file that it writes")
        ahead = min(ahead_ns), max(ahead_ns)
        times = CommandTimes(started_ns, ended_ns, ahead, mtime_ns - ahead[0])
        try:
            documents = _parse_documents(self._bytes().removeprefix(self._old_content))
        except (ValueError, RecursionError) as error:
            raise self._error(f"it is not whole, or not JSON alone: {error}") from error
        form = next((form for form in FORMATS if documents and form.matches(documents[0])), None)
        if form is None:
            names = ", ".join(form.tool for form in FORMATS)
            raise self._error(f"none of the formats that are read: {names}")
        try:
            benchmarks = [self._clip(benchmark, times) for benchmark in form.read(documents, times)]
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            problem = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise self._error(f"not as {form.tool} writes it: {problem}") from error
        if not benchmarks:
            raise self._error("it reports no benchmark")
        return benchmarks

    def _clip(self, benchmark: Benchmark, times: CommandTimes) -> Benchmark:
        """Return the benchmark with no more of its range than the command's own time allows."""
        failed = benchmark.failed_requests or 0
        counts = benchmark.requests, failed, benchmark.input_tokens, benchmark.output_tokens
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"its counts are {', '.join(map(repr, counts))}")
        earliest_ns = max(benchmark.start_range_ns[0], times.started_ns)
        latest_ns = min(benchmark.start_range_ns[1], times.ended_ns - benchmark.duration_ns)
        if benchmark.duration_ns <= 0 or latest_ns < earliest_ns:
            raise self._error(
                f"{benchmark.description}: {benchmark.duration_ns / NS_PER_S:.3f} s of work that "
                "are not within the command's time; is it of another run, another machine's, or "
                "in the local time of another zone (TZ)?"
            )
        return replace(benchmark, start_range_ns=(earliest_ns, latest_ns))

    def _bytes(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise self._error(str(error.strerror)) from error

    def _error(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"--result {self._path}: {message}")


def _parse_documents(content: bytes) -> list[Document]:
    """Return what a file holds: JSON values one after another, lists of them opened.

    Raises:
        ValueError: it is not whole, or something else is between them.
    """
    text, values, position = content.decode("utf-8-sig", errors="replace").strip(), list[Any](), 0
    decoder = json.JSONDecoder()
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        values += value if isinstance(value, list) else [value]
        while text[position : position + 1].isspace():
            position += 1
    return [document for document in values if isinstance(document, dict)]


class Format(NamedTuple):
    """What one tool writes.

    Attributes:
        tool: its name.
        keys: what each of its documents holds.
        read: the benchmarks that documents report.
    """

    tool: str
    keys: tuple[str, ...]
    read: Callable[[Sequence[Document], CommandTimes], Iterator[Benchmark]]

    def matches(self, document: Document) -> bool:
        """Return whether a document is of it."""
        return all(key in document for key in self.keys)


def _read_vllm(documents: Sequence[Document], times: CommandTimes) -> Iterator[Benchmark]:
    for document in documents:
        duration_ns = round(document["duration"] * NS_PER_S)
        advice = None
        if document.get("start_times") and document.get("latencies"):
            # Python's perf_counter, which is CLOCK_MONOTONIC.
            starts_s = document["start_times"]
            ends_s = map(sum, zip(starts_s, document["latencies"], strict=True))
            earliest_ns = latest_ns = round(max(ends_s) * NS_PER_S) - duration_ns
            if _failed_requests(document) or "probe_completed" in document:
                # A request that failed has no latency, and probes are in no list: either may have
                # been the last to end.
                latest_ns = round(min(starts_s) * NS_PER_S)
        else:
            # The date is set some time after the last answer.
            date = datetime.strptime(document["date"], "%Y%m%d-%H%M%S").astimezone()
            earliest_ns = times.started_ns
            latest_ns = times.from_wall_clock(date.timestamp() + 1)[1] - duration_ns
            advice = "vllm bench serve --save-detailed"
        yield Benchmark(
            "vllm bench serve",
            _describe(document, "model_id", "max_concurrency", "request_rate"),
            (earliest_ns, latest_ns),
            duration_ns,
            document["completed"],
            _failed_requests(document),
            document["total_input_tokens"],
            document["total_output_tokens"],
            advice=advice,
        )


def _failed_requests(document: Document) -> int:
    """Return how many requests failed, which some releases do not say."""
    failed = document.get("failed")
    if failed is None:
        failed = max(0, (document.get("num_prompts") or 0) - document["completed"])
    return int(failed)


def _read_sglang(documents: Sequence[Document], times: CommandTimes) -> Iterator[Benchmark]:
    earliest_ns = times.started_ns
    for document in documents:
        duration_ns = round(document["duration"] * NS_PER_S)
        errors = document.get("errors")  # Only --output-details lists what failed.
        yield Benchmark(
            "sglang.bench_serving",
            _describe(document, "dataset_name", "max_concurrency", "request_rate"),
            # A line is appended some time after the last answer: when is not in it.
            (earliest_ns, times.written_ns - duration_ns),
            duration_ns,
            document["completed"],
            None if errors is None else sum(map(bool, errors)),
            document["total_input_tokens"],
            document["total_output_tokens"],
            advice="a benchmark much longer than the tool's own start: it does not write when it "
            "began",
        )
        earliest_ns += duration_ns


def _read_aiperf(documents: Sequence[Document], times: CommandTimes) -> Iterator[Benchmark]:
    (document,) = documents
    if document.get("was_cancelled") or document.get("is_complete") is False:
        raise ValueError(
            f"it was not completed: {document.get('incomplete_reason') or 'cancelled'}"
        )
    duration_ns = round(document["benchmark_duration"]["avg"] * NS_PER_S)
    # Times of this machine's zone; the work is somewhere within them, its duration is exact.
    start_s, end_s = (
        datetime.fromisoformat(document[name]).timestamp() for name in ("start_time", "end_time")
    )
    earliest_ns, latest_ns = times.from_wall_clock(start_s, end_s)
    yield Benchmark(
        "aiperf profile",
        _describe(document, "benchmark_id"),
        (earliest_ns, latest_ns - duration_ns),
        duration_ns,
        round(document["request_count"]["avg"]),
        round((document.get("error_request_count") or {"avg": 0})["avg"]),
        round(document["total_isl"]["avg"]),
        round(document["total_osl"]["avg"]),
    )


def _read_guidellm(documents: Sequence[Document], times: CommandTimes) -> Iterator[Benchmark]:
    (document,) = documents
    # A request cut off where the time was up did part of its work within the window.
    kinds = ("successful", "incomplete")
    for benchmark in document["benchmarks"]:
        if (
            max(benchmark.get(f"{name}_duration") or 0 for name in ("warmup", "cooldown"))
            > _MAX_RAMP_S
        ):
            raise ValueError(
                "with --warmup or --cooldown its window cuts requests, whose tokens it counts whole"
            )
        metrics = benchmark["metrics"]
        totals = metrics["request_totals"]
        input_tokens, output_tokens = (
            round(sum(metrics[name][kind]["total_sum"] for kind in kinds if metrics[name][kind]))
            for name in ("prompt_token_count", "output_token_count")
        )
        strategy = benchmark.get("config", {}).get("strategy") or {}
        yield Benchmark(
            "guidellm benchmark",
            _describe(strategy, "type_", "streams", "rate"),
            times.from_wall_clock(benchmark["start_time"]),
            round((benchmark["end_time"] - benchmark["start_time"]) * NS_PER_S),
            totals["successful"],
            totals["errored"],
            input_tokens,
            output_tokens,
            requests_worked=_requests_worked(metrics, output_tokens),
        )


def _requests_worked(metrics: Document, output_tokens: int) -> float | None:
    """Return of how many requests the work was done, those cut off by their part of an answer.

    None is more than one: long answers are cut off more often than short ones.
    """
    totals, answered = metrics["request_totals"], metrics["output_token_count"]["successful"]
    answered_tokens = round(answered["total_sum"]) if answered else 0
    if answered_tokens <= 0:
        return None
    cut_off = totals["successful"] * (output_tokens - answered_tokens) / answered_tokens
    return float(totals["successful"] + min(cut_off, totals.get("incomplete") or 0))


def _read_llama_bench(documents: Sequence[Document], times: CommandTimes) -> Iterator[Benchmark]:
    starts_s = [
        datetime.strptime(test["test_time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        for test in documents
    ]
    # A test's time is cut to the second and from before its warm-up; the next one's is after.
    ends_ns = [times.from_wall_clock(start_s + 1)[1] for start_s in starts_s[1:]]
    for test, start_s, end_ns in zip(
        documents, starts_s, [*ends_ns, times.written_ns], strict=True
    ):
        if test.get("n_depth"):
            raise ValueError(
                "with --n-depth it works between its repetitions too, and does not say when"
            )
        repetitions, duration_ns = len(test["samples_ns"]), sum(test["samples_ns"])
        yield Benchmark(
            "llama-bench",
            _describe(test, "model_type", "n_prompt", "n_gen", "n_threads"),
            (times.from_wall_clock(start_s)[0], end_ns - duration_ns),
            duration_ns,
            repetitions,
            0,
            repetitions * test["n_prompt"],
            repetitions * test["n_gen"],
            in_process=True,
            advice="llama-bench --no-warmup and more repetitions (-r): it writes when a test "
            "began to the second, and from before its warm-up",
        )


def _describe(document: Document, first: str, *names: str) -> str:
    """Return the named values that a document has, the first without its name."""
    parts = [f"{name} {document[name]}" for name in names if document.get(name) is not None]
    return ", ".join([str(document.get(first)), *parts])


FORMATS = (
    Format("llama-bench -o json or jsonl", ("samples_ns", "test_time", "n_gen"), _read_llama_bench),
    Format(
        "sglang.bench_serving --output-file",
        ("total_output_tokens_retokenized", "duration", "completed"),
        _read_sglang,
    ),
    Format(
        "vllm bench serve --save-result",
        ("total_output_tokens", "duration", "completed", "date"),
        _read_vllm,
    ),
    Format("aiperf profile (profile_export_aiperf.json)", ("aiperf_version",), _read_aiperf),
    Format("guidellm benchmark (benchmarks.json)", ("benchmarks", "metadata"), _read_guidellm),
)
