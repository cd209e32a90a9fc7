"""A load that makes every visible GPU step between rest and work, for characterising its sensor.

    python -m llenergymeasure.sensors.stepping_load [--steps 40] [--slower 1] [--seed 1]
        [--hold SECONDS]

Steps come at times of no common measure, at least 1.35 s apart, so that a mean over 1 s settles
between two of them, or so many times ``--slower``. When each came, CLOCK_MONOTONIC in ns as the
work was handed over or was done, is written to the file that ``LLEM_STEPS`` names. ``--hold`` works
without a rest for so long, and writes when it began.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from llenergymeasure.errors import EXIT_FAILED, EXIT_OK

STEPS_FILE = "LLEM_STEPS"
"""The variable that names the file for the moments of the steps."""

STEPS = 40
SHORTEST_S, LONGEST_S = 1.35, 1.75
_SIDE = 4096
_QUEUE_LENGTH = 8
"""Products handed over before they are waited for: enough to keep a card busy, ms at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the load; return 1 if there is no GPU to load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--slower", type=float, default=1.0, help="times the length of a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hold", type=float, help="work for so many seconds, without steps")
    options = parser.parse_args(arguments)
    try:
        work = _matrix_products()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    if options.hold is not None:
        _write_moments([time.monotonic_ns()])
        _work_for(work, options.hold)
        return EXIT_OK
    _write_moments(steps(work, options.steps, random.Random(options.seed), options.slower))
    return EXIT_OK


def _write_moments(moments_ns: Sequence[int]) -> None:
    path = os.environ.get(STEPS_FILE)
    if path is not None:
        Path(path).write_text("".join(f"{moment_ns}\n" for moment_ns in moments_ns))


def steps(
    work: Callable[[], None], count: int, rng: random.Random, slower: float = 1.0
) -> list[int]:
    """Alternate between work and rest; return when each stretch began."""
    edges_ns = []
    for number in range(count):
        length_s = slower * rng.uniform(SHORTEST_S, LONGEST_S)
        edges_ns.append(time.monotonic_ns())
        if number % 2 == 1:
            time.sleep(length_s)
            continue
        _work_for(work, length_s)
    return edges_ns


def _work_for(work: Callable[[], None], length_s: float) -> None:
    end_ns = time.monotonic_ns() + int(length_s * 1e9)
    while time.monotonic_ns() < end_ns:
        work()


def _matrix_products() -> Callable[[], None]:
    """Return work for all visible GPUs, warmed up.

    Raises:
        RuntimeError: there is none, or nothing to load it with.
    """
    advice = "or give a command that makes the card work in bursts, after --"
    try:
        import torch
    except ImportError:
        raise RuntimeError(
            f"the load is made with PyTorch, which is not installed here: install it, {advice}"
        ) from None
    if not torch.cuda.is_available():
        raise RuntimeError(f"PyTorch {torch.__version__} sees no GPU here: fix that, {advice}")
    cards = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    squares = [torch.randn(_SIDE, _SIDE, device=card, dtype=torch.float16) for card in cards]

    def work() -> None:
        for square in squares:
            for _ in range(_QUEUE_LENGTH):
                torch.matmul(square, square)
        for card in cards:
            torch.cuda.synchronize(card)

    work()
    return work


if __name__ == "__main__":
    sys.exit(main())
