"""The energy of a benchmark's own window, out of the recording of the whole command."""

from typing import Any

from llenergymeasure.api.benchmarks import Benchmark
from llenergymeasure.api.metering import Metered
from llenergymeasure.energy.account import Account
from llenergymeasure.run.result.run_validity import FAILED_SHARE_MAX
from llenergymeasure.units import NS_PER_S


def benchmark_energy(metered: Metered, benchmark: Benchmark, *, server: bool) -> dict[str, Any]:
    """Return what one benchmark took, for the document of ``llem meter``.

    Where the file leaves open when the work began, the intervals reach from the energy of the
    middle window to that of every other that it may have been. With ``server`` the server's
    processes are known, so that all others are strangers.
    """
    own_server = benchmark.in_process or server
    account = metered.within(*benchmark.window, own_server=own_server)
    requests = benchmark.requests_worked or benchmark.requests
    energy = account.energy(benchmark.output_tokens, benchmark.input_tokens, requests)
    placing_j = _placing_j(account, benchmark)
    gross_u95_j = _add(energy.u95_j, placing_j)
    validity: dict[str, str] = {}
    windows = benchmark.windows()
    for window in {benchmark.window, windows[0], windows[-1]}:
        validity |= metered.within(*window, own_server=own_server).validity
    failed = benchmark.failed_requests or 0
    attempted = benchmark.requests + failed
    if failed > FAILED_SHARE_MAX * attempted:
        validity["failed_requests"] = f"{failed} of {attempted} requests failed"
    start_ns, end_ns = benchmark.window
    duration_s = (end_ns - start_ns) / NS_PER_S
    return {
        "tool": benchmark.tool,
        "what": benchmark.description,
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
            "net_u95_j": _add(energy.net_u95_j, placing_j),
            "placing_j": placing_j,
            "bound_j": _add(energy.bound_j, placing_j),
            "u_sys_j": energy.u_sys_j,
            "power_mean_w": energy.power_mean_w,
            "per_output_token_j": energy.per_output_token_j,
            "per_output_token_u95_j": _per(gross_u95_j, benchmark.output_tokens),
            "per_input_token_j": energy.per_input_token_j,
            "per_input_token_u95_j": _per(gross_u95_j, benchmark.input_tokens),
            "per_request_j": energy.per_request_j,
            "per_request_u95_j": _per(gross_u95_j, requests),
            "unavailable": energy.unavailable,
        },
        "validity": list(validity),
        "validity_reasons": validity,
        "advice": benchmark.advice if benchmark.unsure_s else None,
    }


def _placing_j(account: Account, benchmark: Benchmark) -> float | None:
    """Return by how much the energy may differ where the work was at another of its moments."""
    middle = account.total
    stretches = [account.stretch(*window) for window in benchmark.windows()]
    if middle is None or None in stretches:
        return None
    placed_j = [stretch.gross_j for stretch in stretches if stretch is not None]
    return max(abs(gross_j - middle.gross_j) for gross_j in placed_j)


def _add(half_j: float | None, placing_j: float | None) -> float | None:
    return None if half_j is None or placing_j is None else half_j + placing_j


def _per(energy_j: float | None, count: float) -> float | None:
    return None if energy_j is None or not count else energy_j / count
