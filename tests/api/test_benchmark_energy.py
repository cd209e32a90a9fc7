"""Energy of the window of a benchmark that was metered as a command."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llenergymeasure.api.benchmark_energy import benchmark_energy
from llenergymeasure.api.benchmarks import FORMATS, Benchmark, BenchmarkFile
from llenergymeasure.api.metering import meter
from llenergymeasure.errors import ConfigurationError
from nvml_sim import sim
from support import benchmark_files as files
from support.recording import card_environment, environment, uuid

S = 1_000_000_000

FORMS: dict[str, Callable[..., str]] = {
    "vllm": files.vllm,
    "vllm_without_details": lambda start, end: files.vllm(start, end, detailed=False),
    "sglang": files.sglang,
    "aiperf": files.aiperf,
    "guidellm": files.guidellm,
    "llama_bench": files.llama_bench,
}
EXACT = {"vllm", "aiperf", "guidellm"}
assert len(FORMATS) == len(FORMS) - 1  # every format is tried here


def ahead_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


@pytest.fixture
def work() -> tuple[int, int]:
    """Two seconds of work, half a second ago."""
    end_ns = time.monotonic_ns() - S // 2
    return end_ns - 2 * S, end_ns


def read(path: Path, content: str, started_ns: int, before: str | None = None) -> list[Benchmark]:
    """What is read where a command writes this file."""
    if before is not None:
        path.write_text(before)
        time.sleep(0.02)  # its time of change has ticks of some ms
    file = BenchmarkFile(path)
    path.write_text(content)
    return file.read(started_ns, time.monotonic_ns(), [ahead_ns()])


@pytest.mark.parametrize("name", FORMS)
def test_a_format_gives_its_counts_and_a_range_that_holds_its_work(
    tmp_path: Path, work: tuple[int, int], name: str
) -> None:
    start_ns, end_ns = work

    (benchmark,) = read(tmp_path / "result.json", FORMS[name](*work), start_ns - S)

    failed = None if name == "sglang" else 0  # it lists them with --output-details alone
    assert (benchmark.requests, benchmark.failed_requests) == (files.REQUESTS, failed)
    assert benchmark.input_tokens == files.INPUT_TOKENS
    assert benchmark.output_tokens == files.OUTPUT_TOKENS
    assert benchmark.duration_ns == pytest.approx(end_ns - start_ns, abs=10_000)
    slack_ns = 5_000_000
    earliest_ns, latest_ns = benchmark.start_range_ns
    assert earliest_ns - slack_ns <= start_ns <= latest_ns + slack_ns
    assert (benchmark.unsure_s < 0.1) == (name in EXACT)
    assert (benchmark.advice is None) == (name in EXACT)
    assert benchmark.description not in ("", "None")


@pytest.mark.parametrize("name", ["sglang", "vllm"])
def test_lines_of_earlier_benchmarks_are_left_out(
    tmp_path: Path, work: tuple[int, int], name: str
) -> None:
    # vLLM puts the end of line before what it appends.
    old = FORMS[name](work[0] - 900 * S, work[1] - 900 * S) + "\n" * (name == "vllm")
    path = tmp_path / "result.jsonl"

    (benchmark,) = read(path, old + FORMS[name](*work), work[0] - S, before=old)

    assert benchmark.start_range_ns[0] >= work[0] - S


def test_of_a_request_that_guidellm_cuts_off_its_part_counts(
    tmp_path: Path, work: tuple[int, int]
) -> None:
    """A tenth of the tokens is of requests that the end of the time cut off."""
    for number, (incomplete, cut_off, worked) in enumerate(
        [
            (8, 0.1, files.REQUESTS / 0.9),
            (0, 0.0, files.REQUESTS),
            # What was answered was short: no request is more than one.
            (8, 0.8, files.REQUESTS + 8),
        ]
    ):
        content = files.guidellm(*work, incomplete=incomplete, cut_off=cut_off)
        (benchmark,) = read(tmp_path / f"{number}.json", content, work[0] - S)
        assert benchmark.requests == files.REQUESTS
        assert benchmark.requests_worked == pytest.approx(worked, rel=1e-14)
        assert (benchmark.requests_worked == benchmark.requests) == (incomplete == 0)
    for name in set(FORMS) - {"guidellm"}:
        (rest,) = read(tmp_path / f"{name}.json", FORMS[name](*work), work[0] - S)
        assert rest.requests_worked is None


@pytest.mark.parametrize("between", ["", "\n", "\r\n\r\n"])
def test_documents_one_after_another_are_read(tmp_path: Path, between: str) -> None:
    """As ``llama-bench -o json >> FILE`` in a loop leaves them, over many lines each."""
    end_ns = time.monotonic_ns()
    spans = (end_ns - 9 * S, end_ns - 6 * S), (end_ns - 5 * S, end_ns - S)
    content = between.join(files.llama_bench(*span) for span in spans)
    assert len(read(tmp_path / "bench.json", content, end_ns - 20 * S)) == 2


def test_a_mark_of_the_encoding_is_no_fault(tmp_path: Path, work: tuple[int, int]) -> None:
    assert read(tmp_path / "result.json", "\ufeff" + files.vllm(*work), work[0] - S)


def test_tests_of_one_file_bound_each_other(tmp_path: Path) -> None:
    end_ns = time.monotonic_ns()
    first, second = (end_ns - 9 * S, end_ns - 6 * S), (end_ns - 5 * S, end_ns - S)
    tests = [json.loads(files.llama_bench(*span))[0] for span in (first, second)]
    content = "\n".join(json.dumps(test) for test in tests)

    prompt, generation = read(tmp_path / "bench.jsonl", content, end_ns - 20 * S)

    assert prompt.start_range_ns[0] <= first[0] <= prompt.start_range_ns[1] <= second[0] + S - 3 * S
    assert generation.start_range_ns[0] <= second[0] <= generation.start_range_ns[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "none of the formats"),
        ("no json", "not JSON alone"),
        ('{"aiperf_version": "1", "sta', "not whole"),
        ("[" * 100_000, "not whole"),
        ('{"a": 1}', "none of the formats"),
        ("[1, 2]", "none of the formats"),
        ('{"aiperf_version": "1"}', "not as aiperf profile .* has no 'benchmark_duration'"),
        ('{"benchmarks": [], "metadata": {}}', "no benchmark"),
        ('{"benchmarks": 3, "metadata": {}}', "not as guidellm"),
    ],
)
def test_a_file_that_is_no_use_is_named_with_the_reason(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"--result .*result\.json: .*{message}"):
        read(tmp_path / "result.json", content, time.monotonic_ns())


LEFT_OUT = object()


def changed(name: str, **values: Any) -> Callable[[int, int], str]:
    """A tool's file with other values; those left out are not in it."""

    def content(start_ns: int, end_ns: int) -> str:
        document = json.loads(FORMS[name](start_ns, end_ns))
        fields = document[0] if isinstance(document, list) else document
        fields.update(values)
        for key in [key for key, value in values.items() if value is LEFT_OUT]:
            del fields[key]
        return json.dumps(document)

    return content


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (changed("aiperf", is_complete=False, incomplete_reason="stalled"), "stalled"),
        (changed("llama_bench", n_depth=512), "n-depth"),
        (changed("vllm", duration=0.0), "not within"),
        (changed("vllm", duration=float("nan")), "not as vllm"),
        (changed("vllm", completed="many"), "not as vllm"),
        (changed("vllm", total_output_tokens=-4), "not as vllm"),
        (lambda start, end: files.vllm(start - 900 * S, end - 900 * S), "not within"),
        (lambda start, end: files.guidellm(start + 900 * S, end + 900 * S), "not within"),
    ],
)
def test_what_cannot_be_a_benchmark_of_this_command_is_refused(
    tmp_path: Path, work: tuple[int, int], form: Callable[..., str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path / "result.json", form(*work), work[0] - S)


@pytest.mark.parametrize(
    ("name", "changes", "failed"),
    [
        ("vllm", {"completed": 30, "failed": None}, files.REQUESTS - 30),
        ("vllm", {"completed": 30, "failed": LEFT_OUT}, files.REQUESTS - 30),
        # A data set may hold fewer prompts than were asked for.
        ("vllm", {"completed": 30, "failed": 0, "num_prompts": 1000}, 0),
        ("sglang", {"errors": ["", "timed out", ""]}, 1),
    ],
    ids=["not known", "left out", "counted", "listed"],
)
def test_what_failed_is_what_is_counted_or_listed_or_follows_from_what_was_asked(
    tmp_path: Path, work: tuple[int, int], name: str, changes: dict[str, Any], failed: int
) -> None:
    (benchmark,) = read(tmp_path / "result.json", changed(name, **changes)(*work), work[0] - S)
    assert benchmark.requests == changes.get("completed", files.REQUESTS)
    assert benchmark.failed_requests == failed


@pytest.mark.parametrize(
    "ended_last", [{"completed": 39, "failed": 1}, {"probe_completed": 3, "probe_failed": 0}]
)
def test_work_that_ends_without_an_answer_leaves_open_when_vllms_began(
    tmp_path: Path, work: tuple[int, int], ended_last: dict[str, int]
) -> None:
    """The last to end says nothing of when: a request that hung and failed, or a probe."""
    start_ns, end_ns = work
    start_s, duration_s = start_ns / S, (end_ns - start_ns) / S
    listed = {
        "start_times": [start_s + 0.01, start_s + 0.02],
        "latencies": [duration_s / 4, 0.0],
        "errors": ["", "timeout"],
    }
    (benchmark,) = read(
        tmp_path / "result.json", changed("vllm", **listed, **ended_last)(*work), start_ns - 9 * S
    )

    assert benchmark.start_range_ns[0] <= start_ns <= benchmark.start_range_ns[1]
    assert benchmark.unsure_s == pytest.approx(0.75 * duration_s / 2, abs=1e-3)


@pytest.mark.parametrize("cut", ["warmup_duration", "cooldown_duration"])
def test_a_window_of_guidellms_that_cuts_requests_is_refused(
    tmp_path: Path, work: tuple[int, int], cut: str
) -> None:
    """It counts all tokens of every request of which a part was in its window."""
    document = json.loads(files.guidellm(*work))
    document["benchmarks"][0] |= {"warmup_duration": 0.0, "cooldown_duration": 1e-7, cut: 0.5}
    with pytest.raises(ConfigurationError, match="--warmup or --cooldown"):
        read(tmp_path / "result.json", json.dumps(document), work[0] - S)


def test_an_old_file_is_not_taken_for_the_commands(tmp_path: Path, work: tuple[int, int]) -> None:
    path = tmp_path / "result.json"
    path.write_text(files.vllm(*work))
    file = BenchmarkFile(path)

    with pytest.raises(ConfigurationError, match="did not write it"):
        file.read(work[0] - S, time.monotonic_ns(), [ahead_ns()])


def test_a_folder_that_is_not_there_is_an_error_before_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        BenchmarkFile(tmp_path / "nowhere" / "result.json")


@pytest.mark.slow
def test_the_energy_is_that_of_the_benchmarks_own_window(tmp_path: Path) -> None:
    card = sim.Device(power_w=[(0.0, 100.0), (60.0, 700.0)], uuid=uuid(1))
    variables = card_environment(tmp_path, [card])
    files_by_name = {name: BenchmarkFile(tmp_path / name) for name in FORMS}
    with environment(variables), meter(rest_s=2.0) as metered:
        ahead, started_ns = [ahead_ns()], time.monotonic_ns()
        time.sleep(1.0)
        start_ns = time.monotonic_ns()
        time.sleep(4.0)
        end_ns = time.monotonic_ns()
        for name, form in FORMS.items():
            (tmp_path / name).write_text(form(start_ns, end_ns))
        time.sleep(0.5)
    ahead.append(ahead_ns())

    t0_ns = int(variables["NVML_SIM_T0"])
    true_j = card.true_energy_j((start_ns - t0_ns) / 1e9, (end_ns - t0_ns) / 1e9)
    # The card draws 10 W more each second, so that 4 s of it hold 40 J more for each second later.
    later_w = 10.0 * 4.0
    for name, file in files_by_name.items():
        (benchmark,) = file.read(started_ns, time.monotonic_ns(), ahead)
        report = benchmark_energy(metered, benchmark, server=True)
        energy = report["energy"]
        assert abs(energy["gross_j"] - true_j) <= energy["gross_u95_j"], name
        # How much is left open depends on where in its second the work began.
        left_open_j = later_w * report["window"]["unsure_s"]
        assert energy["placing_j"] == pytest.approx(left_open_j, abs=0.005 * true_j), name
        per_token_j = energy["per_output_token_j"]
        assert per_token_j == pytest.approx(energy["gross_j"] / files.OUTPUT_TOKENS)
        worked = benchmark.requests_worked or files.REQUESTS
        assert energy["per_request_j"] == pytest.approx(energy["gross_j"] / worked)
        identity_w = per_token_j * report["output_tokens_per_s"]
        assert identity_w == pytest.approx(energy["power_mean_w"])
        assert energy["net_j"] < energy["gross_j"]
        assert energy["net_u95_j"] > 0
