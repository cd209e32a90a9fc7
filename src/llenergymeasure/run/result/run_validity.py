"""Reasons to doubt a run, in addition to those of its meter: every code of batches and of traffic.

What each code means, and whether it keeps a run out of the means, is in
``validity_codes.VALIDITY``. The codes of the energy itself are decided in ``energy/validity.py``.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from llenergymeasure.backends.serving.events import GAVE_UP
from llenergymeasure.config.requested_work import fewest_tokens, requested_work
from llenergymeasure.config.servers import is_this_machine
from llenergymeasure.energy.batches import Batch
from llenergymeasure.energy.disturbance import cpu_use
from llenergymeasure.energy.readings import CARD_SCOPES
from llenergymeasure.recording.samples import Samples
from llenergymeasure.results.effective_settings import differing_settings
from llenergymeasure.results.energy import Energy
from llenergymeasure.results.record import Quality
from llenergymeasure.run.result.steadiness import far_slower
from llenergymeasure.sensors.host_cpu import OTHERS_MAX

if TYPE_CHECKING:  # a run of batches does not wait for its import
    from llenergymeasure.run.result.traffic_result import ServedRun

FAILED_SHARE_MAX = 0.01
"""Share of failed requests beyond which a run is disqualified."""

LATENESS_P99_MAX_S = 0.005
"""Lateness of sending beyond which the client counts as too slow for the rate."""

HELD_SHARE_MAX = 0.05
"""Share of its users' time past which the client, not the server, settles a closed loop's load."""

ODD_SHARE_MAX = 0.01
"""Share of the prompts or answers that may be odd, for each code."""

CUT_SHARE_MAX = 0.05
"""Share of natural answers that ``max_output_tokens`` may cut off."""

ODD_REQUESTS = {
    "token_mismatch": "prompts are counted otherwise by the model's tokenizer",
    "cached_prompts": "prompts were in the server's prefix cache, beyond what the traffic shares",
    "length_mismatch": "answers had other than the tokens asked for",
    "undercounted_answers": "answers came in more parts than tokens were counted",
    "empty_answers": "answers had no token",
    "buffered_stream": "answers of several tokens came all at once",
    "thinking_mismatch": "answers show other than the thought that the server counted",
}
"""Codes of odd prompts and answers, and the text that follows their number."""


def run_codes(
    config: Mapping[str, Any],
    engine: Mapping[str, Any],
    energy: Energy,
    *,
    steady: bool | None,
    quality: Quality | None,
) -> dict[str, str]:
    """Return the validity codes that any run can have, each with its explanation."""
    codes = {}
    measured = energy.kind == "measured"
    if steady is False and measured:
        codes["not_steady"] = "throughput or power has a trend within the window; see steadiness"
    busy_cards = engine.get("beside") or {}
    neighbours = sorted({card["uuid"] for cards in busy_cards.values() for card in cards})
    if neighbours and measured:
        codes["shared_node"] = f"busy just before or after: {', '.join(neighbours)}"
    own_processes = engine.get("own_processes") or {}
    busy_after = sorted({card["uuid"] for card in busy_cards.get("after") or ()})
    measures_cards = measured and not set(CARD_SCOPES).isdisjoint(energy.scopes)
    if busy_after and own_processes and not any(own_processes.values()) and measures_cards:
        codes["other_gpu"] = (
            f"no process was on {', '.join(own_processes)}, whose energy this is, and there were "
            f"on {', '.join(busy_after)}"
        )
    changed_settings = differing_settings(config, engine["resolved_config"])
    if changed_settings:
        changes = [f"{key}: {how}" for key, how in changed_settings.items()]
        codes["resolved_otherwise"] = "; ".join(changes)
    computes_on_cpu = bool(engine["devices"]) and not engine["computes_on_gpu"]
    if measured and "gpu" in energy.scopes and computes_on_cpu:
        codes["computes_on_cpu"] = (
            "the engine computed on the CPU, and the energy is that of the GPU that it did not use"
        )
    address = urlsplit((config.get("openai") or {}).get("base_url", "")).hostname
    if address is not None and not is_this_machine(address):
        codes["remote_server"] = (
            f"{address} did the work and is not known to be on this machine: the energy is that of "
            "this machine alone"
        )
    reasons = () if quality is None else (quality.perplexity_unavailable, quality.score_unavailable)
    if any(reasons):
        codes["quality_unavailable"] = "; ".join(reason for reason in reasons if reason)
    return codes


def batch_codes(
    config: Mapping[str, Any],
    requested_tokens: int,
    requests: pa.Table,
    batches: Sequence[Batch],
    samples: Samples,
) -> dict[str, str]:
    """Return the validity codes of a window of batches, each with its explanation.

    ``requested_tokens`` is asked of each answer.
    """
    codes: dict[str, str] = {}
    for batch, usual_s in far_slower(batches):
        others_share = cpu_use(samples, (batch.start_ns, batch.end_ns)).others_share or 0.0
        if others_share <= OTHERS_MAX:
            codes["stalled"] = f"a batch took {batch.span_s:.2f} s, and its like {usual_s:.2f} s"
            break
    if odd := count_other_lengths(config, requested_tokens, requests):
        codes["length_mismatch"] = f"{odd} of {len(requests)} {ODD_REQUESTS['length_mismatch']}"
    empty = requests["output_tokens"].to_pylist().count(0)
    if empty > ODD_SHARE_MAX * len(requests):
        codes["empty_answers"] = f"{empty} of {len(requests)} {ODD_REQUESTS['empty_answers']}"
    reasons = requests["finish_reason"].to_pylist()
    failures = [reason for reason in reasons if reason in GAVE_UP]
    first = f"the first ended with {failures[0]}" if failures else ""
    codes |= _failed_requests(len(failures), len(requests), first)
    return codes | cut_answers(config.get("answer_length"), reasons)


def cut_answers(answer_length: str | None, reasons: Sequence[str | None]) -> dict[str, str]:
    """Return the code for natural answers that were cut off, from the reason why each ended."""
    cut = reasons.count("length")
    if answer_length != "natural" or cut <= CUT_SHARE_MAX * len(reasons):
        return {}
    return {"cut_answers": f"{cut} of {len(reasons)} answers did not end before max_output_tokens"}


def _failed_requests(failed: int, total: int, first: str) -> dict[str, str]:
    if failed <= FAILED_SHARE_MAX * total:
        return {}
    limit = f"{100 * FAILED_SHARE_MAX:.0f} %"
    return {"failed_requests": f"{failed} of {total} requests failed, more than {limit}; {first}"}


def count_other_lengths(
    config: Mapping[str, Any], requested_tokens: int, requests: pa.Table
) -> int:
    """Return how many answers have another length than asked for, if those are over 1 %.

    Lengths and numbers in an engine's own section win.
    """
    answers = requested_work(config).get("answers") or {}
    longest, number = answers.get("longest") or requested_tokens, answers.get("number", 1)
    max_tokens, min_tokens = longest * number, fewest_tokens(config, longest) * number
    lengths = requests["output_tokens"].to_pylist()
    odd = sum(not min_tokens <= tokens <= max_tokens for tokens in lengths)
    return odd if odd > ODD_SHARE_MAX * len(requests) else 0


def _count_difference(requests: pa.Table) -> str:
    """Return how many tokens of prompts the server counted, and how many the tokenizer."""
    names = ("failure", "input_tokens", "input_tokens_expected")
    rows = zip(*(requests[name].to_pylist() for name in names), strict=True)
    counts = [row[1:] for row in rows if row[0] is None and row[2] is not None]
    counted, expected = map(sum, zip(*counts, strict=True))
    hint = "; it may cut prompts to a context length of its own" if counted < 0.9 * expected else ""
    return f": {counted} tokens in place of {expected}{hint}"


def traffic_codes(run: "ServedRun") -> dict[str, str]:
    """Return the validity codes of a run under traffic, each with its explanation."""
    serving, sent = run.serving, run.sent
    failed = [
        f"{row['failure']}: {row['failure_message']}" for row in sent if row["failure"] is not None
    ]
    first = f"the first: {failed[0]}" if failed else ""
    codes = _failed_requests(len(failed), len(sent), first)
    lateness_s = run.lateness_s
    late_p99_s = float(np.percentile(lateness_s, 99)) if len(lateness_s) else 0.0
    if late_p99_s > LATENESS_P99_MAX_S and serving.open_loop:
        codes["late_sends"] = (
            f"1 % of the requests were sent more than {late_p99_s * 1e3:.1f} ms after their time; "
            f"the client keeps up where it is at most {LATENESS_P99_MAX_S * 1e3:g} ms"
        )
    held_share = run.held_share or 0.0
    if held_share > HELD_SHARE_MAX:
        codes["late_sends"] = (
            f"for {held_share:.0%} of their time the users waited for the client, not the server; "
            f"it keeps up where that is at most {HELD_SHARE_MAX:.0%}"
        )
    for code, description in ODD_REQUESTS.items():
        is_odd = run.odd_requests[code]
        if sum(is_odd) > ODD_SHARE_MAX * len(is_odd):
            codes[code] = f"{sum(is_odd)} of {len(is_odd)} {description}"
    if "token_mismatch" in codes:
        codes["token_mismatch"] += _count_difference(run.requests)
    finish_reasons = [row["finish_reason"] for row in sent if row["failure"] is None]
    codes |= cut_answers(run.config.answer_length, finish_reasons)
    idle = serving.rate_per_s == 0 and serving.arrivals != "ramp"
    if not sent and not run.tokens("").output and not idle:
        codes["no_requests"] = "no request was to be sent within the window, and none answered"
    gauges = [values for _, values in run.report["gauges"]]
    foreign = max((values.get("foreign_requests", 0) for values in gauges), default=0)
    if foreign:
        codes["foreign_requests"] = (
            f"the server counts {foreign:.0f} requests more than the run has sent"
        )
    if run.over_saturated:
        codes["over_saturated"] = (
            f"requests pile up by {run.growth_per_s:.2f} a second: they come faster than "
            "they are answered"
        )
    elif run.report["ramp_up"] == "gave up":
        codes["not_steady"] = "the window opened before the traffic was steady"
    elif serving.arrivals == "ramp":
        codes["not_steady"] = "the load was to change within the window"
    return codes
