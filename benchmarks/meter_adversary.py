"""Loads and cards that the meter was not tuned to: is its interval true, and is it useful?

On the simulated card, where the truth is known, under a stepped clock, with the recorder's own
reading code: every load on every kind of card, in windows cut at counter ticks, as asked, and
from rest to rest, without and after a probe. Zeus and polled power measure the same windows.

    make nvml-sim && python benchmarks/meter_adversary.py [--quick] [--windows N] [--json FILE]
        [--loads "serve,low load"] [--sensors "A100 true,RAPL"]
    python benchmarks/meter_adversary.py --faults     what faulty counters and cards give
    python benchmarks/meter_adversary.py --real 24    windows of the real llem meter, in real time

Exits 1 if anything that must hold does not; every such line is printed with its figures.

- ``ticks``: the window ends when a program that waits for a tick has seen it.
- ``asked``: anywhere.
- ``bracketed``: the work's own ends; beside them at least 0.35 s of rest, given as the phases
  ``margin_before`` and ``margin_after``.
- ``loaded``: as asked, with such margins given although the load may go on in them, as where a
  GPU's work was not waited for.
- ``silent``: the truth lies outside the interval, and there is no validity code.
"""

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import harness
import meter_adversary_faults as faults
import meter_adversary_judge as judge
import meter_adversary_real as real
import meter_adversary_windows as windows
import meter_recording as recording
import numpy as np
from harness import Criterion
from meter_adversary_cards import MODELS, QUICK_MODELS
from meter_adversary_loads import LOADS, QUICK_LOADS
from meter_adversary_windows import RAPL, Job, Window

PROBES = 2
"""Probes of each kind of card; the windows take turns with what they found."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; return 1 if something that must hold does not."""
    parser = harness.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="four loads, four kinds of cards")
    parser.add_argument("--windows", type=int, default=4, help="windows a combination")
    parser.add_argument("--loads", type=_names, help="only these, separated by commas")
    parser.add_argument("--sensors", type=_names, help="only these, separated by commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path, help="write windows and what must hold here")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--faults", action="store_true", help="faulty counters and cards")
    mode.add_argument("--real", type=int, metavar="N", help="windows by llem meter in real time")
    options = harness.begin(parser, arguments)
    valid_names = {*LOADS, RAPL, *(model.name for model in MODELS)}
    if unknown := {*(options.loads or ()), *(options.sensors or ())} - valid_names:
        parser.error(f"no such load or sensor: {', '.join(sorted(unknown))}")
    library = harness.card_library()
    os.nice(5)
    rows, met = _run(options, library)
    if options.json is not None:
        content = {"rows": rows, "criteria": [{"met": m, "text": text} for m, text in met]}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    print()
    return harness.report_criteria(met)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _run(options: argparse.Namespace, library: Path) -> tuple[list[object], list[Criterion]]:
    if options.real is not None:
        return real.run(options.real, options.seed)
    if options.faults:
        recording.load_library(library)
        return faults.run(options.seed)
    measured = _measure(options, library)
    judge.print_table(measured)
    judge.print_cells(measured)
    return [asdict(window) for window in measured], list(judge.criteria(measured))


def _measure(options: argparse.Namespace, library: Path) -> list[Window]:
    names = QUICK_MODELS if options.quick else tuple(model.name for model in MODELS)
    loads = options.loads or (QUICK_LOADS if options.quick else tuple(LOADS))
    names = tuple(name for name in options.sensors or names if name != RAPL)
    rapl = (RAPL,) if not options.sensors or RAPL in options.sensors else ()
    lengths_s = (5.0,) if options.quick else (5.0, 20.0)
    pool = multiprocessing.get_context("spawn").Pool(
        options.jobs, recording.load_library, (library,)
    )
    with pool:
        chances = [np.random.default_rng((options.seed + 1000 * n, 1)) for n in range(PROBES)]
        known_cards = pool.starmap(windows.probe, [(names, rng) for rng in chances], chunksize=1)
        jobs = [
            Job(
                load,
                repetition,
                options.seed,
                lengths_s,
                (*names, *rapl),
                known_cards[repetition % PROBES],
                real_zeus=repetition == 0,
            )
            for repetition in range(2 if options.quick else options.windows)
            for load in loads
        ]
        return [
            window for batch in pool.map(windows.measure, jobs, chunksize=1) for window in batch
        ]


if __name__ == "__main__":
    sys.exit(main())
