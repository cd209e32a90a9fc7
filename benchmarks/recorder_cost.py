"""Side by side: an engine's speed with the recorder sampling beside it, and with it stopped.

    python benchmarks/recorder_cost.py [--pairs 30] [--seconds 2]

The pytorch backend generates on the tiny model while a real recorder samples every sensor of this
machine, or the simulated card where the library is built (`make nvml-sim`). The recorder is halted
(SIGSTOP) in every second stretch; which of a pair comes first alternates. The figure is the median
of the pairs' ratios of tokens/s, with its 95 % interval by the bootstrap. What the engine's own
process pays is printed first: the marks of a phase.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


from llenergymeasure.backends import registry
from llenergymeasure.backends.base import Engine
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.recording.client import RecorderProcess
from llenergymeasure.run.engine.batch_window import cut_batches
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.workload.prompts import build_workload
from llenergymeasure.workload.requests import Request
from nvml_sim import sim


def tokens_per_s(engine: Engine, batches: Sequence[Sequence[Request]], seconds: float) -> float:
    """Return the engine's speed over at least ``seconds``, in output tokens a second."""
    started = time.perf_counter()
    tokens = 0
    turn = 0
    while (elapsed_s := time.perf_counter() - started) < seconds:
        done = engine.generate(batches[turn % len(batches)])
        tokens += sum(completion.output_tokens for completion in done)
        turn += 1
    return tokens / elapsed_s


def main() -> None:
    """Print each pair's ratio and the median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    config = ExperimentConfig.model_validate(
        {
            "model": "tiny-llama",
            "precision": "fp32",
            "n": 8,
            "max_input_tokens": 32,
            "max_output_tokens": 32,
            "pytorch": {"batch_size": 8},
        }
    )
    with tempfile.TemporaryDirectory() as scratch:
        _tell_own_cost(Path(scratch))
        _use_simulated_card(Path(scratch))
        engine = registry.get("pytorch").load(config)
        batches = cut_batches(build_workload(config).requests, engine.batch_size)
        recorder = RecorderProcess.start(Path(scratch, "samples.arrows"), run_pid=os.getpid())
        ready = recorder.wait_ready(60)
        sensors = [each["sensor"] for each in ready["sensors"] if each["unavailable"] is None]
        print(f"sampling: {', '.join(sensors)}")
        tokens_per_s(engine, batches, 5.0)
        ratios = []
        for pair in range(options.pairs):
            speed = {}
            for on in (True, False) if pair % 2 else (False, True):
                os.kill(recorder.pid, signal.SIGCONT if on else signal.SIGSTOP)
                speed[on] = tokens_per_s(engine, batches, options.seconds)
            ratios.append(speed[True] / speed[False])
        os.kill(recorder.pid, signal.SIGCONT)
        recorder.stop(10)
        engine.close()
    _tell(np.array(ratios))


def _tell_own_cost(folder: Path) -> None:
    """Print what marking a phase costs the process at work."""
    marks = Marks(folder / "marks")

    def mark() -> None:
        with marks.phase("measure"):
            pass

    print(f"in the engine's process: {_microseconds(mark):.1f} us for a phase's two marks")


def _microseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    times_ns = []
    for _ in range(2000):
        before_ns = time.perf_counter_ns()
        call()
        times_ns.append(time.perf_counter_ns() - before_ns)
    return float(np.median(times_ns)) / 1000


def _use_simulated_card(folder: Path) -> None:
    library, reason = sim.library_or_reason()
    if library is None:
        print(f"no simulated card: {reason}")
        return
    trace = sim.Trace([sim.Device(power_w=[(0.0, 300.0)], sensor=sim.Sensor())])
    os.environ.update(sim.environment(trace.write(folder), base={}))


def _tell(ratios: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
    draws = np.random.default_rng(1).choice(ratios, (4000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    print(
        f"tokens/s with the recorder / without: median {np.median(ratios):.4f}"
        f" (95 % {low:.4f} to {high:.4f}, {len(ratios)} pairs)"
    )


if __name__ == "__main__":
    main()
