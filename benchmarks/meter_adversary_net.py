"""Energy above a rest that does not stand still.

The true rest is what the card draws without the work, at the state that the work has put it in:
leakage of a hot card and a higher performance state are rest, not work.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import meter_adversary_loads as loads
import meter_adversary_ours as ours
import meter_recording as recording
import numpy as np
from harness import Criterion, counted
from meter_adversary_cards import recorded
from meter_adversary_loads import Trace

Floats = loads.Floats
CARD = "H200 true"
IDLE_FROM_S, WARM_FROM_S, WARM_TO_S = 1.0, 11.0, 31.0
START_S, END_S, IDLE_TO_S, WHOLE_S = 31.4, 51.4, 61.8, 63.5
MARGIN_S = 0.4
NET_W = (318.0, 31.8)
REPETITIONS = 4


@dataclass(frozen=True)
class Net:
    """The energy above rest of one window. Energies are in joules."""

    rest: str
    true_net_j: float
    true_gross_j: float
    energy: ours.Energy

    @property
    def covered(self) -> bool:
        """Return whether the truth lies in the net interval."""
        return ours.covers(self.energy.net_j, self.energy.net_u95_j, self.true_net_j)

    @property
    def silent(self) -> bool:
        """Return whether a net energy is outside its interval without a code."""
        return self.energy.net_j is not None and not self.covered and not self.energy.codes


def _flat(t_s: Floats, _: np.random.Generator) -> Floats:
    return np.full(len(t_s), 95.0)


def _linear(t_s: Floats, _: np.random.Generator) -> Floats:
    return 95.0 + 20.0 * t_s / WHOLE_S


def _leakage(t_s: Floats, _: np.random.Generator) -> Floats:
    """25 W more when hot; both rise and decay take 8 s."""
    hot = 1 - np.exp(-np.maximum(t_s - WARM_FROM_S, 0) / 8)
    at_end = 1 - np.exp(-(END_S - WARM_FROM_S) / 8)
    return 95.0 + 25.0 * np.where(t_s < END_S, hot, at_end * np.exp(-(t_s - END_S) / 8))


def _states(t_s: Floats, _: np.random.Generator) -> Floats:
    """P0 at 120 W from the first work until 4 s after the last, else P8 at 70 W."""
    return np.where((t_s >= WARM_FROM_S) & (t_s < END_S + 4.0), 120.0, 70.0)


def _fluctuating(t_s: Floats, rng: np.random.Generator) -> Floats:
    """A mean of 95 W and a standard deviation of 6 W that remembers itself for 2 s."""
    keep = np.exp(-(t_s[1] - t_s[0]) / 2.0)
    off_w = np.empty(len(t_s))
    off_w[0] = rng.normal(0, 6)
    for place in range(1, len(t_s)):
        off_w[place] = keep * off_w[place - 1] + rng.normal(0, 6 * np.sqrt(1 - keep**2))
    return 95.0 + off_w


RESTS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "flat 95 W": _flat,
    "linear, +20 W": _linear,
    "+25 W when hot, 8 s": _leakage,
    "P0 120 W 4 s, P8 70 W": _states,
    "fluctuates, sd 6 W": _fluctuating,
}


def run(seed: int, *, quick: bool) -> tuple[list[object], list[Criterion]]:
    """Measure net energies; print the table, return what was found and what must hold."""
    repetitions = 1 if quick else REPETITIONS
    rows = [
        [
            _net(rest, net_w, np.random.default_rng((seed, 5, number, round(net_w), repetition)))
            for repetition in range(repetitions)
        ]
        for number, rest in enumerate(RESTS)
        for net_w in NET_W
    ]
    print(
        f"{'rest':24}{'true net':>9}{'n':>3}{'none':>5}{'net error in J':>20}{'in %':>20}"
        f"{'med u95':>9}{'in':>4}{'coded':>6}{'silent':>7}{'gross |e|':>10}{'gross u95':>10}  codes"
    )
    for row in rows:
        _print(row)
    silent = sum(net.silent for row in rows for net in row)
    criteria = [(silent == 0, f"net energies outside their interval without a code: {silent}")]
    none = sum(net.energy.net_j is None for row in rows for net in row)
    criteria.append((none == 0, f"windows beside a rest and without a net energy: {none}"))
    return [asdict(net) for row in rows for net in row], criteria


def _net(rest: str, net_w: float, rng: np.random.Generator) -> Net:
    grid_s = np.unique(np.concatenate((np.arange(0, WHOLE_S, 0.1), [WARM_FROM_S, END_S + 4.0])))
    # A step of the rest is a ramp of a microsecond.
    grid_s = np.unique(np.concatenate((grid_s, [WARM_FROM_S - 1e-6, END_S + 4.0 - 1e-6, WHOLE_S])))
    rest_trace = Trace(rest, grid_s, RESTS[rest](grid_s, rng), np.zeros(0))
    work_s, work_w = loads.LOADS["offline batches"](END_S - START_S, rng)
    warm_s, warm_w = loads.LOADS["offline batches"](WARM_TO_S - WARM_FROM_S, rng)
    scale = net_w * (END_S - START_S) / float(np.trapezoid(work_w - 90, work_s))
    work = (
        np.concatenate(
            ([0, WARM_FROM_S], WARM_FROM_S + warm_s, [WARM_TO_S, START_S], START_S + work_s)
        ),
        scale * np.concatenate(([0, 0], warm_w - 90, [0, 0], work_w - 90)),
    )
    work = np.append(work[0], [END_S, WHOLE_S]), np.append(work[1], [0.0, 0.0])
    t_s, power_w = _sum(work, (grid_s, rest_trace.power_w))
    trace = Trace(rest, t_s, power_w, np.zeros(0))
    samples = recorded(CARD, trace, WHOLE_S, rng)
    spans_s = [
        ("load", 0.0, IDLE_FROM_S),
        ("idle_before", IDLE_FROM_S, WARM_FROM_S),
        ("warmup", WARM_FROM_S, WARM_TO_S),
        ("margin_before", WARM_TO_S, START_S),
        ("measure", START_S, END_S),
        ("margin_after", END_S, END_S + MARGIN_S),
        ("idle_after", END_S + MARGIN_S, IDLE_TO_S),
    ]
    ns = recording.nanoseconds
    phases = [(name, ns(from_s), ns(to_s)) for name, from_s, to_s in spans_s]
    energy = ours.energy_of(samples, (ns(START_S), ns(END_S)), phases)
    ends = np.array([START_S]), np.array([END_S])
    gross_j = float(trace.energy_j(*ends)[0])
    return Net(rest, gross_j - float(rest_trace.energy_j(*ends)[0]), gross_j, energy)


def _sum(one: loads.Points, other: loads.Points) -> loads.Points:
    """Return the sum of two powers, with the steps of both."""
    moments_s = np.unique(np.concatenate((one[0], other[0])))
    left_w = loads.power_at(one, moments_s, "left") + loads.power_at(other, moments_s, "left")
    right_w = loads.power_at(one, moments_s, "right") + loads.power_at(other, moments_s, "right")
    return np.repeat(moments_s, 2), np.column_stack((left_w, right_w)).ravel()


def _print(row: Sequence[Net]) -> None:
    given = [net for net in row if net.energy.net_j is not None]
    errors_j = [(net.energy.net_j or 0.0) - net.true_net_j for net in given]
    shares = [100 * error_j / net.true_net_j for error_j, net in zip(errors_j, given, strict=True)]
    span = f"{min(errors_j):+.1f} to {max(errors_j):+.1f}" if errors_j else "-"
    percent = f"{min(shares):+.2f} to {max(shares):+.2f}" if shares else "-"
    gross = [
        (abs(e.gross_j - net.true_gross_j) / net.true_gross_j, e.gross_u95_j / net.true_gross_j)
        for net in row
        if (e := net.energy).gross_j is not None and e.gross_u95_j is not None
    ]
    gross_error, gross_u95 = np.median(gross, axis=0) if gross else (np.nan, np.nan)
    u95_j = [net.energy.net_u95_j for net in given if net.energy.net_u95_j is not None]
    print(
        f"{row[0].rest:24}{row[0].true_net_j:9.0f}{len(row):3}{len(row) - len(given):5}{span:>20}"
        f"{percent:>20}{np.median(u95_j) if u95_j else np.nan:9.1f}"
        f"{sum(net.covered for net in row):4}{sum(bool(net.energy.codes) for net in row):6}"
        f"{sum(net.silent for net in row):7}{100 * gross_error:9.4f}%{100 * gross_u95:9.4f}%"
        f"  {counted(code for net in row for code in net.energy.codes)}"
    )
