"""The page's part on traffic, from rows as runs leave them."""

from typing import Any

from llenergymeasure.report.serving import FIGURE_NAMES, serving_content
from llenergymeasure.results.table import RUN_SCHEMA

RATE = "serving.rate_per_s"


def run(rate: float, **more: Any) -> dict[str, Any]:
    row = dict.fromkeys(RUN_SCHEMA.names)
    return {
        **row,
        "experiment": f"{int(rate):012x}",
        "cycle": 1,
        "status": "completed",
        "kind": "measured",
        "validity": [],
        "backend": "vllm",
        "model": "tiny-llama",
        "precision": "bf16",
        RATE: rate,
        "offered_requests_per_s": rate,
        "requests_per_s": min(rate, 6.0),
        "over_saturated": rate > 6,
        "requests_failed": 0,
        "power_mean_w": 100 + 3 * min(rate, 6.0),
        "energy_u95_j": 10.0,
        "window_s": 10.0,
        "energy_per_output_token_j": (100 + 3 * rate) / max(rate, 1) / 32,
        "request_latency_p95_s": 0.1 * rate,
        "request_latency_p99_s": 0.12 * rate,
        "time_to_first_token_p50_s": 0.02,
        "time_to_first_token_p99_s": 0.03,
        "time_per_output_token_p50_s": 0.01,
        **more,
    }


def test_knee_and_curve_are_told_and_drawn() -> None:
    content = serving_content([run(rate) for rate in (1, 2, 4, 8)], [RATE])
    assert content is not None
    assert "keeps up with 4 and no longer with 8" in content.sentences[0]
    assert "100" in content.sentences[1]
    assert "3 runs" in content.sentences[1]
    assert set(content.figures) == set(FIGURE_NAMES)
    for figure in content.figures.values():
        assert "<svg" in figure.svg
        assert "<svg" in figure.narrow_svg
    assert [row["state"] for row in content.rows] == ["", "", "", "over-saturated"]


def test_groups_are_named_by_what_they_differ_in() -> None:
    runs = [run(rate, backend=name) for name in ("vllm", "sglang") for rate in (1, 2)]
    content = serving_content(runs, [RATE])
    assert content is not None
    assert [sentence.split(":")[0] for sentence in content.sentences] == ["vllm", "sglang"]


def test_without_traffic_there_is_nothing_to_say() -> None:
    assert serving_content([run(1, offered_requests_per_s=None)], []) is None


def test_runs_without_energy_or_answers_are_listed_all_the_same() -> None:
    idle = run(0, energy_per_output_token_j=None, request_latency_p95_s=None, power_mean_w=None)
    content = serving_content([idle], [RATE])
    assert content is not None
    assert len(content.rows) == 1
