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

_APART_S = 0.01
_STEP_NS = NS_PER_S // 5
_MOST_WINDOWS = 101
"""How finely the windows are looked at that a benchmark may have had, and at how many."""


@dataclass(frozen=True)
class Moments:
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

    def of_wall(self, earliest_s: float, latest_s: float | None = None) -> tuple[int, int]:
        """Return a range of wall clock times, in s since 1970, on our clock."""
        least_ns, most_ns = self.ahead_ns
        latest_s = earliest_s if latest_s is None else latest_s
        return round(earliest_s * NS_PER_S) - most_ns, round(latest_s * NS_PER_S) - least_ns


@dataclass(frozen=True)
class Benchmark:
    """One benchmark that a tool reports.

    Attributes:
        tool: which wrote it.
        what: what it says of itself: the model, the load.
        began_ns: when its work began, at the earliest and at the latest, CLOCK_MONOTONIC.
        duration_ns: how long it took.
        requests: how many were answered; of a tool that sends none, its repetitions.
        requests_worked: of how many the work was done, with parts of those that were cut off.
        failed_requests: how many were not; None where the file does not say.
        input_tokens, output_tokens: of them all.
        in_process: whether the tool computes itself, and no server for it.
        advice: what makes the file say when the work began; None where it does.
    """

    tool: str
    what: str
    began_ns: tuple[int, int]
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
        begin_ns = sum(self.began_ns) // 2
        return begin_ns, begin_ns + self.duration_ns

    @property
    def unsure_s(self) -> float:
        """How far its true window may be from that one."""
        return (self.began_ns[1] - self.began_ns[0]) / 2 / NS_PER_S

    def windows(self) -> list[tuple[int, int]]:
        """Return windows that it may have had, evenly over all of them."""
        first_ns, last_ns = self.began_ns
        count = min(_MOST_WINDOWS, 2 + (last_ns - first_ns) // _STEP_NS) if self.unsure_s else 1
        begins_ns = [first_ns + (last_ns - first_ns) * n // max(count - 1, 1) for n in range(count)]
        return [(begin_ns, begin_ns + self.duration_ns) for begin_ns in begins_ns]


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
        self._before = self._bytes() if path.exists() else b""
        self._written_ns = path.stat().st_mtime_ns if path.exists() else None

    def read(self, started_ns: int, ended_ns: int, ahead_ns: Sequence[int]) -> list[Benchmark]:
        """Return the benchmarks that the command has written of.

        Args:
            started_ns: start of the command, CLOCK_MONOTONIC.
            ended_ns: its end.
            ahead_ns: by how much the wall clock was ahead of that, looked at before and after.

        Raises:
            ConfigurationError: there is nothing new, or it is not of a format that is known.
        """
        written_ns = self._path.stat().st_mtime_ns if self._path.exists() else None
        if written_ns is None or written_ns == self._written_ns:
            raise self._error("the command did not write it; name the file that it writes")
        ahead = min(ahead_ns), max(ahead_ns)
        moments = Moments(started_ns, ended_ns, ahead, written_ns - ahead[0])
        try:
            documents = _documents(self._bytes().removeprefix(self._before))
        except (ValueError, RecursionError) as error:
            raise self._error(f"it is not whole, or not JSON alone: {error}") from error
        form = next((form for form in FORMATS if documents and form.writes(documents[0])), None)
        if form is None:
            names = ", ".join(form.tool for form in FORMATS)
            raise self._error(f"none of the formats that are read: {names}")
        try:
            found = [self._within(one, moments) for one in form.read(documents, moments)]
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise self._error(f"not as {form.tool} writes it: {what}") from error
        if not found:
            raise self._error("it reports no benchmark")
        return found

    def _within(self, found: Benchmark, moments: Moments) -> Benchmark:
        """Return the benchmark with no more of its range than the command's own time allows."""
        failed = found.failed_requests or 0
        counts = found.requests, failed, found.input_tokens, found.output_tokens
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"its counts are {', '.join(map(repr, counts))}")
        earliest_ns = max(found.began_ns[0], moments.started_ns)
        latest_ns = min(found.began_ns[1], moments.ended_ns - found.duration_ns)
        if found.duration_ns <= 0 or latest_ns < earliest_ns:
            raise self._error(
                f"{found.what}: {found.duration_ns / NS_PER_S:.3f} s of work that are not within "
                "the command's time; is it of another run, another machine's, or in the local time "
                "of another zone (TZ)?"
            )
        return replace(found, began_ns=(earliest_ns, latest_ns))

    def _bytes(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise self._error(str(error.strerror)) from error

    def _error(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"--result {self._path}: {message}")


def _documents(content: bytes) -> list[Document]:
    """Return what a file holds: JSON values one after another, lists of them opened.

    Raises:
        ValueError: it is not whole, or something else is between them.
    """
    text, found, at = content.decode("utf-8-sig", errors="replace").strip(), list[Any](), 0
    decoder = json.JSONDecoder()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found += value if isinstance(value, list) else [value]
        while text[at : at + 1].isspace():
            at += 1
    return [each for each in found if isinstance(each, dict)]


class Format(NamedTuple):
    """What one tool writes.

    Attributes:
        tool: its name.
        keys: what each of its documents holds.
        read: the benchmarks that documents report.
    """

    tool: str
    keys: tuple[str, ...]
    read: Callable[[Sequence[Document], Moments], Iterator[Benchmark]]

    def writes(self, document: Document) -> bool:
        """Return whether a document is of it."""
        return all(key in document for key in self.keys)


def _vllm(documents: Sequence[Document], moments: Moments) -> Iterator[Benchmark]:
    for document in documents:
        duration_ns = round(document["duration"] * NS_PER_S)
        advice = None
        if document.get("start_times") and document.get("latencies"):
            # Python's perf_counter, which is CLOCK_MONOTONIC.
            starts_s = document["start_times"]
            ends_s = map(sum, zip(starts_s, document["latencies"], strict=True))
            earliest_ns = latest_ns = round(max(ends_s) * NS_PER_S) - duration_ns
            if _failed(document) or "probe_completed" in document:
                # A request that failed has no latency, and probes are in no list: either may have
                # been the last to end.
                latest_ns = round(min(starts_s) * NS_PER_S)
        else:
            # The date is set some time after the last answer.
            date = datetime.strptime(document["date"], "%Y%m%d-%H%M%S").astimezone()
            earliest_ns = moments.started_ns
            latest_ns = moments.of_wall(date.timestamp() + 1)[1] - duration_ns
            advice = "vllm bench serve --save-detailed"
        yield Benchmark(
            "vllm bench serve",
            _said(document, "model_id", "max_concurrency", "request_rate"),
            (earliest_ns, latest_ns),
            duration_ns,
            document["completed"],
            _failed(document),
            document["total_input_tokens"],
            document["total_output_tokens"],
            advice=advice,
        )


def _failed(document: Document) -> int:
    """Return how many requests failed, which some releases do not say."""
    failed = document.get("failed")
    if failed is None:
        failed = max(0, (document.get("num_prompts") or 0) - document["completed"])
    return int(failed)


def _sglang(documents: Sequence[Document], moments: Moments) -> Iterator[Benchmark]:
    began_ns = moments.started_ns
    for document in documents:
        duration_ns = round(document["duration"] * NS_PER_S)
        errors = document.get("errors")  # Only --output-details lists what failed.
        yield Benchmark(
            "sglang.bench_serving",
            _said(document, "dataset_name", "max_concurrency", "request_rate"),
            # A line is appended some time after the last answer: when is not in it.
            (began_ns, moments.written_ns - duration_ns),
            duration_ns,
            document["completed"],
            None if errors is None else sum(map(bool, errors)),
            document["total_input_tokens"],
            document["total_output_tokens"],
            advice="a benchmark much longer than the tool's own start: it does not write when it "
            "began",
        )
        began_ns += duration_ns


def _aiperf(documents: Sequence[Document], moments: Moments) -> Iterator[Benchmark]:
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
    earliest_ns, latest_ns = moments.of_wall(start_s, end_s)
    yield Benchmark(
        "aiperf profile",
        _said(document, "benchmark_id"),
        (earliest_ns, latest_ns - duration_ns),
        duration_ns,
        round(document["request_count"]["avg"]),
        round((document.get("error_request_count") or {"avg": 0})["avg"]),
        round(document["total_isl"]["avg"]),
        round(document["total_osl"]["avg"]),
    )


def _guidellm(documents: Sequence[Document], moments: Moments) -> Iterator[Benchmark]:
    (document,) = documents
    # A request cut off where the time was up did part of its work within the window.
    kinds = ("successful", "incomplete")
    for benchmark in document["benchmarks"]:
        if (
            max(benchmark.get(f"{name}_duration") or 0 for name in ("warmup", "cooldown"))
            > _APART_S
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
            _said(strategy, "type_", "streams", "rate"),
            moments.of_wall(benchmark["start_time"]),
            round((benchmark["end_time"] - benchmark["start_time"]) * NS_PER_S),
            totals["successful"],
            totals["errored"],
            input_tokens,
            output_tokens,
            requests_worked=_worked(metrics, output_tokens),
        )


def _worked(metrics: Document, output_tokens: int) -> float | None:
    """Return of how many requests the work was done, those cut off by their part of an answer.

    None is more than one: long answers are cut off more often than short ones.
    """
    totals, answered = metrics["request_totals"], metrics["output_token_count"]["successful"]
    whole = round(answered["total_sum"]) if answered else 0
    if whole <= 0:
        return None
    parts = totals["successful"] * (output_tokens - whole) / whole
    return float(totals["successful"] + min(parts, totals.get("incomplete") or 0))


def _llama_bench(documents: Sequence[Document], moments: Moments) -> Iterator[Benchmark]:
    starts_s = [
        datetime.strptime(each["test_time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
        for each in documents
    ]
    # A test's time is cut to the second and from before its warm-up; the next one's is after.
    ends_ns = [moments.of_wall(start_s + 1)[1] for start_s in starts_s[1:]]
    for document, start_s, end_ns in zip(
        documents, starts_s, [*ends_ns, moments.written_ns], strict=True
    ):
        if document.get("n_depth"):
            raise ValueError(
                "with --n-depth it works between its repetitions too, and does not say when"
            )
        repetitions, duration_ns = len(document["samples_ns"]), sum(document["samples_ns"])
        yield Benchmark(
            "llama-bench",
            _said(document, "model_type", "n_prompt", "n_gen", "n_threads"),
            (moments.of_wall(start_s)[0], end_ns - duration_ns),
            duration_ns,
            repetitions,
            0,
            repetitions * document["n_prompt"],
            repetitions * document["n_gen"],
            in_process=True,
            advice="llama-bench --no-warmup and more repetitions (-r): it writes when a test "
            "began to the second, and from before its warm-up",
        )


def _said(document: Document, first: str, *others: str) -> str:
    """Return the named values that a document has, the first without its name."""
    named = [f"{name} {document[name]}" for name in others if document.get(name) is not None]
    return ", ".join([str(document.get(first)), *named])


FORMATS = (
    Format("llama-bench -o json or jsonl", ("samples_ns", "test_time", "n_gen"), _llama_bench),
    Format(
        "sglang.bench_serving --output-file",
        ("total_output_tokens_retokenized", "duration", "completed"),
        _sglang,
    ),
    Format(
        "vllm bench serve --save-result",
        ("total_output_tokens", "duration", "completed", "date"),
        _vllm,
    ),
    Format("aiperf profile (profile_export_aiperf.json)", ("aiperf_version",), _aiperf),
    Format("guidellm benchmark (benchmarks.json)", ("benchmarks", "metadata"), _guidellm),
)
