"""Arrivals come as the process says, from a seed, and as recorded."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.serving import ServingConfig
from llenergymeasure.errors import ConfigurationError
from llenergymeasure.workload import arrivals
from llenergymeasure.workload.arrivals import arrival_offsets, trace_lines
from llenergymeasure.workload.arrivals_trace import read_trace
from llenergymeasure.workload.traffic_prompts import TrafficPrompts

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n"
    "2023-11-16 18:17:04.0319600,3180,8\n"
    "2023-11-16 18:17:05.9799600,110,27\n"
)


def offsets(seconds: float, seed: int = 7, **settings: object) -> np.ndarray:
    return arrival_offsets(ServingConfig.model_validate(settings), seconds, seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_poisson_gaps_are_exponential_and_independent(seed: int) -> None:
    gaps = np.diff(offsets(2000, seed, arrivals="poisson", rate_per_s=5))
    assert stats.kstest(gaps, "expon", args=(0, 1 / 5)).pvalue > 1e-3
    lag = np.corrcoef(gaps[:-1], gaps[1:])[0, 1]
    assert abs(lag) < 4 / math.sqrt(len(gaps))


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0])
def test_gammas_gaps_have_its_shape_and_the_rate(shape: float) -> None:
    gaps = np.diff(offsets(2000, arrivals="gamma", rate_per_s=5, burstiness=shape))
    assert stats.kstest(gaps, "gamma", args=(shape, 0, 1 / (shape * 5))).pvalue > 1e-3


def test_constant_gaps_are_constant_and_begin_anywhere() -> None:
    times = offsets(10, arrivals="constant", rate_per_s=8)
    assert np.allclose(np.diff(times), 1 / 8)
    assert 0 <= times[0] < 1 / 8
    assert len(times) in (80, 81)
    assert times[0] != offsets(10, 8, arrivals="constant", rate_per_s=8)[0]


def test_a_ramps_rate_grows_evenly() -> None:
    """Mapped through its mean function a ramp is a Poisson process, evenly spread."""
    times = offsets(400, arrivals="ramp", rate_per_s=2, rate_end_per_s=18)
    mapped = (2 * times + 16 * times**2 / 800) / (400 * 10)
    assert stats.kstest(mapped, "uniform").pvalue > 1e-3
    assert abs(len(times) - 4000) < 4 * math.sqrt(4000)


def test_the_same_seed_gives_the_same_times_and_another_others() -> None:
    settings = {"arrivals": "poisson", "rate_per_s": 3}
    assert np.array_equal(offsets(50, 1, **settings), offsets(50, 1, **settings))
    assert not np.array_equal(offsets(50, 1, **settings)[:20], offsets(50, 2, **settings)[:20])


def test_no_rate_is_no_traffic() -> None:
    assert len(offsets(50, arrivals="poisson", rate_per_s=0)) == 0


def test_a_trace_is_replayed_at_another_speed_and_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE)
    config = ServingConfig(arrivals="trace", trace=str(path), trace_speed=2.0)
    times = arrival_offsets(config, 4.0, 1, read_trace(path))
    assert times[:3] == pytest.approx([0, 0.026, 1.0], abs=1e-6)
    assert times[3] == pytest.approx(1.5, abs=1e-6)
    assert np.all(np.diff(times) > 0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"arrivals": "poisson"}, "need rate_per_s"),
        ({"arrivals": "gamma", "rate_per_s": 1}, "need burstiness"),
        ({"arrivals": "closed"}, "need concurrency"),
        ({"arrivals": "closed", "concurrency": 2, "rate_per_s": 1}, "rate_per_s belongs"),
        ({"rate_per_s": 1, "think_seconds": 1}, "think_seconds belongs"),
        ({"rate_per_s": 1, "output_tokens": {"distribution": "data"}}, "names no file"),
        ({"rate_per_s": 1, "input_tokens": {"distribution": "uniform"}}, "needs min_tokens"),
        ({"rate_per_s": 1, "shared_prefixes": 2}, "needs shared_prefix_ratio"),
    ],
)
def test_traffic_that_does_not_fit_together_is_refused(
    settings: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        ServingConfig.model_validate(settings)


def test_a_replay_may_begin_later_in_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,input_tokens,output_tokens\n5,1,1\n105,2,2\n106,3,3\n")
    trace = read_trace(path, 50.0)
    assert trace.offset_s.tolist() == [0, 1]
    assert trace.lengths(0) == (2, 2)
    with pytest.raises(ConfigurationError, match=r"trace_start_seconds.*ends 101 s after"):
        read_trace(path, 200.0)


def test_times_in_milliseconds_are_taken_where_the_speed_says_so(tmp_path: Path) -> None:
    path = tmp_path / "milliseconds.csv"
    first = 1_700_000_000_000
    rows = "".join(f"{first + 500 * number},5,5\n" for number in range(4))
    path.write_text(f"timestamp,input_tokens,output_tokens\n{rows}")
    traffic = {"arrivals": "trace", "trace": str(path)}
    for speed in (None, 20.0):
        study = {"model": "tiny-llama", "serving": {**traffic, "trace_speed": speed}}
        with pytest.raises(ConfigurationError, match=r":2: .*finer.*trace_speed: 1000"):
            TrafficPrompts(ExperimentConfig.model_validate(study))
    config = ServingConfig.model_validate({**traffic, "trace_speed": 1000.0})
    prompts = TrafficPrompts(
        ExperimentConfig.model_validate({"model": "tiny-llama", "serving": config})
    )
    times = arrival_offsets(config, 1.6, 1, prompts.trace)
    assert times == pytest.approx([0, 0.5, 1.0, 1.5])
    path = tmp_path / "microseconds.csv"
    path.write_text(f"timestamp,input_tokens,output_tokens\n{first * 1000},5,5\n")
    with pytest.raises(ConfigurationError, match="or finer"):
        read_trace(path, speed=1000.0)


def test_a_trace_in_a_wrong_unit_is_seen_by_its_rate(tmp_path: Path) -> None:
    """Mooncake's times are in milliseconds; nothing in the file says that these are seconds."""
    path = tmp_path / "seconds.jsonl"
    row = '{"timestamp": %s, "input_length": 5, "output_length": 6}\n'
    path.write_text("".join(row % (0.5 * number) for number in range(101)))
    traffic = {"arrivals": "trace", "trace": str(path), "trace_speed": 2.0}
    configs = [{"serving": traffic}, {"serving": {**traffic, "slo": 1}}, {"serving": None}]
    line = f"Trace {path}: 101 requests come in 0.025 s as replayed, 4,040 a second"
    assert trace_lines(configs) == [line]
    at_once = tmp_path / "at_once.jsonl"
    turn = '{"session_id": "%s", "timestamp": 5, "delay": 9, "input_length": 5, "output_length": 6}'
    at_once.write_text("\n".join(turn % number for number in "aabb"))
    (line,) = trace_lines([{"serving": {"arrivals": "trace", "trace": str(at_once)}}])
    assert line == f"Trace {at_once}: 2 sessions begin in 0 s as replayed"


def test_a_trace_of_too_much_a_second_is_refused_before_its_arrivals_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated for as long as the window may be they are hundreds of millions."""
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,input_tokens,output_tokens\n1,5,5\n1.000001,5,5\n")
    monkeypatch.setattr(arrivals, "arrival_offsets", lambda *_: pytest.fail("made"))
    study = {"model": "tiny-llama", "serving": {"arrivals": "trace", "trace": str(path)}}
    with pytest.raises(ConfigurationError, match="2 requests in 1e-06 s, more than 100000 a"):
        TrafficPrompts(ExperimentConfig.model_validate(study))


def test_a_trace_without_a_request_in_the_window_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,input_tokens,output_tokens\n0,5,5\n100,5,5\n200,5,5\n")
    traffic = {"arrivals": "trace", "trace": str(path)}
    study = {
        "model": "tiny-llama",
        "serving": traffic,
        "window": {"min_seconds": 3},
    }
    with pytest.raises(ConfigurationError, match="nothing comes in the 63 s"):
        TrafficPrompts(ExperimentConfig.model_validate(study))
    for name, last_s, says in (
        ("at_once", "1.0", "nothing comes in the 63 s"),
        ("crowded", "1.000001", "3 requests in 1e-06 s, more than 100000 a"),
    ):
        late = tmp_path / f"{name}.csv"
        late.write_text(f"timestamp,input_tokens,output_tokens\n1,5,5\n1,5,5\n{last_s},5,5\n")
        many = {**study, "serving": {**traffic, "trace": str(late)}}
        with pytest.raises(ConfigurationError, match=says):
            TrafficPrompts(ExperimentConfig.model_validate(many))
    faster = {**study, "serving": {**traffic, "trace_speed": 2.0}}
    assert TrafficPrompts(ExperimentConfig.model_validate(faster)).trace is not None
