"""What the work came to in operations: their number, their energy, and the share of the peak.

The operations follow from the model's dimensions and the asked lengths, the same for every
engine; under traffic, or where answers may end by themselves, from the lengths that came. Model
FLOPs utilisation (MFU) is their rate over the makers' peak rate of the cards (the PaLM paper,
Chowdhery et al. 2022, arXiv:2204.02311, section 4.1).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llenergymeasure.machine.gpus.peak_rates import Peak, peak
from llenergymeasure.workload.models.flops import decode_flops, prefill_flops

if TYPE_CHECKING:  # an engine's process needs no record, what finishes a run no model
    from llenergymeasure.results.record import Flops
    from llenergymeasure.workload.models.resolve import ModelSource

_PEAK_RATE_PRECISIONS = ("bf16", "fp16")


def workload_flops(
    source: "ModelSource | None", lengths: Iterable[tuple[int, int]]
) -> dict[str, Any]:
    """Return the operations of requests, prefill and decode apart.

    Args:
        source: the model.
        lengths: tokens of each prompt and of its answer; none where they cannot be determined.

    Returns:
        ``per_output_token`` (prompts included), ``per_request``, ``prefill_per_request``,
        ``decode_per_request``: means over the requests, None where the model's dimensions are not
        known; ``method``, ``confidence``.
    """
    architecture = None if source is None else source.architecture
    length_counts = Counter(lengths)
    if architecture is None or not length_counts:
        reason = "the dimensions of this model's family are not known here"
        if architecture is not None:
            reason = "no answer ended in the window of the traffic"
        return {"per_output_token": None, "method": "none", "confidence": reason}
    prefill = decode = 0.0
    for (prompt, output), count in length_counts.items():
        prefill += count * prefill_flops(architecture, prompt)
        decode += count * decode_flops(architecture, prompt, output)
    requests = length_counts.total()
    output_tokens = sum(output * count for (_, output), count in length_counts.items())
    return {
        "per_output_token": (prefill + decode) / output_tokens if output_tokens else None,
        "per_request": (prefill + decode) / requests,
        "prefill_per_request": prefill / requests,
        "decode_per_request": decode / requests,
        "method": "architecture",
        "confidence": "high",
    }


def flops_record(
    flops: Mapping[str, Any],
    *,
    requests: float,
    work_s: float,
    gross_j: float | None,
    precision: str,
    gpus: Sequence[str] | None,
) -> "Flops":
    """Return the operations with what they cost and how near to the peak they came.

    Args:
        flops: as :func:`workload_flops` returns them.
        requests: whose work is inside the window.
        work_s: how long that took.
        gross_j: headline energy of the window; None if there is none.
        precision: what the engine computes in.
        gpus: names of the cards in use; None if they do not compute.
    """
    from llenergymeasure.results.record import Flops

    per_request = flops.get("per_request")
    if per_request is None:
        return Flops(**flops, mfu_unavailable="the operations are not known")
    total = per_request * requests
    peaks = [peak(name) for name in gpus or ()]
    known_peaks = [card_peak for card_peak in peaks if card_peak is not None]
    sources = dict.fromkeys(card_peak.source for card_peak in known_peaks)
    unavailable = _why_no_peak(precision, gpus, peaks)
    peak_per_s = None if unavailable else sum(card_peak.flops_per_s for card_peak in known_peaks)
    return Flops(
        **flops,
        per_s=total / work_s,
        energy_per_tflop_j=None if gross_j is None or not total else gross_j / (total / 1e12),
        mfu=None if peak_per_s is None else total / work_s / peak_per_s,
        peak_per_s=peak_per_s,
        peak_source=None if unavailable else "; ".join(sources),
        mfu_unavailable=unavailable,
    )


def _why_no_peak(
    precision: str, gpus: Sequence[str] | None, peaks: Sequence[Peak | None]
) -> str | None:
    if not gpus:
        return "no GPU does the work"
    if precision not in _PEAK_RATE_PRECISIONS:
        return f"the makers' rates are of 16 bits; this computes in {precision}"
    names = dict.fromkeys(name for name, rate in zip(gpus, peaks, strict=True) if rate is None)
    return f"no peak rate is known here for {', '.join(names)}" if names else None
