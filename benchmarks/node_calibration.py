"""Is a calibration right? Simulated cards of known gain, held against simulated external meters.

Ten minutes of the card's own time are recorded with the recorder's reading code (no waiting), while
its load steps; the meter's log is made from the card's true power, as late, coarse, noisy and slow
as a meter is. Printed is how far gain, offset and lag are off, and what was said of it.

    python benchmarks/node_calibration.py [--minutes 10] [--cards 3] [--seed 1]
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import harness
import meter_recording as recording
import numpy as np
from meter_adversary_loads import Trace

from llenergymeasure.api.calibrate import calibrate
from llenergymeasure.config.calibration import read_calibration
from llenergymeasure.energy.against_meter import Surely
from llenergymeasure.errors import LlemError
from llenergymeasure.recording.samples import write_samples
from nvml_sim import sim

CARDS = ((0.942, -1.2), (1.044, -22.6), (1.0, 0.0), (0.93, 4.0), (1.127, 1.0))
"""Gain and offset in W, as in the data of arXiv 2312.02741."""

AVERAGE_S = 1.0
"""What a meter of 1 Hz averages over."""


@dataclass(frozen=True)
class Meter:
    """A meter: how late it is, its pace, its last digit, its noise, and its clock's error."""

    name: str
    lag_s: float = 2.0
    period_s: float = 1.0
    digit_w: float = 0.1
    noise_w: float = 0.3
    behind_s: float = 0.0
    missing: tuple[float, float] = (0.0, 0.0)

    def log(self, trace: Trace, end_s: float, rng: np.random.Generator) -> str:
        """Return its log: each line's time by its own clock, seconds since 1970."""
        lines = ["time,watts"]
        t_s = rng.uniform(self.lag_s + AVERAGE_S, self.lag_s + AVERAGE_S + self.period_s)
        while t_s < end_s:
            # Its mean lies lag_s before the line.
            to_s = t_s - self.lag_s + AVERAGE_S / 2
            average_s = np.array([to_s - AVERAGE_S]), np.array([to_s])
            true_w = float(trace.energy_j(*average_s)[0]) / AVERAGE_S
            watts = self.digit_w * round((true_w + rng.normal(0, self.noise_w)) / self.digit_w)
            if not self.missing[0] <= t_s < self.missing[1]:
                lines.append(f"{t_s - self.behind_s:.3f},{watts:.3f}")
            t_s += self.period_s
        return "\n".join(lines) + "\n"


METERS = (
    Meter("1 Hz, 2 s late"),
    Meter("1 Hz, 2 s late, 1 W digits", digit_w=1.0),
    Meter("1 Hz, clock 5 s behind", behind_s=5.0),
    Meter("1 Hz, 90 s missing", missing=(200.0, 290.0)),
    Meter("each 3 s, 6 s late", period_s=3.0, lag_s=6.0),
    Meter("slow: each 60 s", period_s=60.0, lag_s=30.0),
    Meter("clock an hour ahead", behind_s=-3600.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a card and meter; return 1 if a gain or offset is outside of its interval."""
    parser = harness.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cards", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = harness.begin(parser, arguments)
    rng = np.random.default_rng(options.seed)
    recording.load_library(harness.card_library())
    outside = 0
    for gain, offset_w in CARDS[: options.cards]:
        with tempfile.TemporaryDirectory() as name:
            outside += _card(Path(name), gain, offset_w, 60 * options.minutes, rng)
    return int(outside > 0)


def _card(
    folder: Path, gain: float, offset_w: float, end_s: float, rng: np.random.Generator
) -> int:
    points = _steps(end_s, rng)
    t_s, watts = np.array(points).T
    trace = Trace("steps", t_s, watts, np.zeros(0))
    sensor = sim.Sensor(
        window_ms=100, gain=gain, offset_w=offset_w, counter_from="samples", counter_lag_ms=10
    )
    device = sim.Device(name="Simulated GPU", power_w=points, sensor=sensor)
    with recording.opened([device], rng) as (inventory, clock):
        samples = recording.record(inventory, [0], clock, end_s)
    write_samples(samples, folder / "card.parquet")
    began_s = datetime.fromisoformat(samples.header.started_at).astimezone(UTC).timestamp()
    assert began_s == 0.0
    outside = 0
    for meter in METERS:
        log = folder / "wall.csv"
        log.write_text(meter.log(trace, end_s, rng))
        print(f"gain {gain:.3f}, offset {offset_w:+5.1f} W | {meter.name:<27}| ", end="")
        try:
            text, words = calibrate(log, folder / "card.parquet", Surely(accuracy=0.0))
        except LlemError as error:
            print(error)
            continue
        (folder / "made.yaml").write_text(text)
        (found,) = read_calibration(folder / "made.yaml").gains.values()
        off, off_w = found.gain / gain - 1, found.offset_w - offset_w
        print(
            f"gain {off:+.3%} (± {found.band:.3%}), "
            f"offset {off_w:+.3f} W (± {found.u_offset_w:.3f});"
            f" {'; '.join(word.strip() for word in words[2:])}"
        )
        outside += abs(off) > found.band or abs(off_w) > found.u_offset_w
    return outside


def _steps(end_s: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return power that steps between rest and loads, and wobbles a little at each."""
    points: list[tuple[float, float]] = []
    t_s = 0.0
    while t_s < end_s + 100:
        resting = len(points) == 0 or points[-1][1] > 200
        level_w = 90.0 if resting else float(rng.uniform(350, 680))
        until_s = t_s + float(rng.uniform(13.5, 17.5))
        while t_s < until_s:
            points += [(t_s, level_w), (min(t_s + 0.5, until_s), level_w * rng.normal(1, 0.004))]
            t_s = min(t_s + 0.5, until_s)
    return points


if __name__ == "__main__":
    sys.exit(main())
