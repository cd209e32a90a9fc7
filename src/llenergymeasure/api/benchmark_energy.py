"""The energy of a benchmark's own window, out of the recording of the whole command."""

from typing import Any

from llenergymeasure.api.benchmarks import Benchmark
from llenergymeasure.api.metering import Metered
from llenergymeasure.energy.account import Account
from llenergymeasure.run.result.validity import FAILED_SHARE_MAX
from llenergymeasure.units import NS_PER_S


def benchmark_energy(metered: Metered, benchmark: Benchmark, *, server: bool) -> dict[str, Any]:
    """Return what one benchmark took, for the document of ``llem meter``.

    Where the file leaves open when the work began, the intervals reach from the energy of the
    middle window to that of every other that it may have been. With ``server`` the server's
    processes are known, so that all others are strangers.
    """
    own_server = benchmark.in_process or server
    made = metered.within(*benchmark.window, own_server=own_server)
    worked = benchmark.requests_worked or benchmark.requests
    energy = made.energy(benchmark.output_tokens, benchmark.input_tokens, worked)
    placing_j = _placing_j(made, benchmark)
    gross_u95_j = _sum(energy.u95_j, placing_j)
    validity: dict[str, str] = {}
    for window in {benchmark.window, *benchmark.windows()[:: len(benchmark.windows()) - 1 or 1]}:
        validity |= metered.within(*window, own_server=own_server).validity
    failed = benchmark.failed_requests or 0
    asked = benchmark.requests + failed
    if failed > FAILED_SHARE_MAX * asked:
        validity["failed_requests"] = f"{failed} of {asked} requests failed"
    start_ns, end_ns = benchmark.window
    duration_s = (end_ns - start_ns) / NS_PER_S
    return {
        "tool": benchmark.tool,
        "what": benchmark.what,
        "window": {
            "start_monotonic_ns": start_ns,
            "end_monotonic_ns": end_ns,
            "duration_s": duration_s,
            "unsure_s": benchmark.unsure_s,
        },
        "requests": benchmark.requests,
        "requests_worked": benchmark.requests_worked,
        "failed_requests": benchmark.failed_requests,
        "input_tokens": benchmark.input_tokens,
        "output_tokens": benchmark.output_tokens,
        "output_tokens_per_s": benchmark.output_tokens / duration_s,
        "energy": {
            "kind": energy.kind,
            "scopes": energy.scopes,
            "gross_j": energy.gross_j,
            "gross_u95_j": gross_u95_j,
            "net_j": energy.net_j,
            "net_u95_j": _sum(energy.net_u95_j, placing_j),
            "placing_j": placing_j,
            "bound_j": _sum(energy.bound_j, placing_j),
            "u_sys_j": energy.u_sys_j,
            "power_mean_w": energy.power_mean_w,
            "per_output_token_j": energy.per_output_token_j,
            "per_output_token_u95_j": _per(gross_u95_j, benchmark.output_tokens),
            "per_input_token_j": energy.per_input_token_j,
            "per_input_token_u95_j": _per(gross_u95_j, benchmark.input_tokens),
            "per_request_j": energy.per_request_j,
            "per_request_u95_j": _per(gross_u95_j, worked),
            "unavailable": energy.unavailable,
        },
        "validity": list(validity),
        "validity_reasons": validity,
        "advice": benchmark.advice if benchmark.unsure_s else None,
    }


def _placing_j(made: Account, benchmark: Benchmark) -> float | None:
    """Return by how much the energy may differ where the work was at another of its moments."""
    middle = made.total
    placed = [made.stretch(*window) for window in benchmark.windows()]
    if middle is None or None in placed:
        return None
    return max(abs(each.gross_j - middle.gross_j) for each in placed if each is not None)


def _sum(half_j: float | None, placing_j: float | None) -> float | None:
    return None if half_j is None or placing_j is None else half_j + placing_j


def _per(energy_j: float | None, count: float) -> float | None:
    return None if energy_j is None or not count else energy_j / count
