"""What a real card's sensor does, and what a known architecture costs on it, in stages.

    python benchmarks/gpu_validation.py --out DIR [--minutes 20] [--only raw,first] [--skip study]
    python benchmarks/gpu_validation.py --page DIR     # the page, computed from what DIR holds
    make nvml-sim && python benchmarks/gpu_validation.py --out DIR --simulated build/nvml_sim

Each stage is a process of its own with a time limit. Its raw recordings are written into
``DIR/<stage>/`` as they are made, and ``DIR/results.json`` after each: whatever is killed and when,
what was done is there. Stages that do not fit in what is left of ``--minutes`` are skipped and
named. Needs PyTorch with CUDA and 26 GB on the card, and downloads nothing. No setting of the card
is changed. ``--simulated`` tries all of it on a simulated card, with tiny models; its page says so,
and proves nothing of a real one.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]

from gpu_stages import card, checks, page, running
from gpu_stages.keeping import RESULTS


def main(arguments: list[str] | None = None) -> int:
    """Run the stages, or write the page; a stage's failure is in its results, not in the exit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the results; stages are added to it")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long all may take")
    parser.add_argument("--only", help="stages, joined by commas")
    parser.add_argument("--skip", default="", help="stages, joined by commas")
    parser.add_argument("--simulated", type=Path, help="folder of the simulated card's library")
    parser.add_argument("--page", type=Path, help="results to make the page of; measures nothing")
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)
    for hidden in ("--stage", "--work", "--parent", "--play"):  # how it calls itself
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.page is not None:
        print(page.write(options.page.parent if options.page.is_file() else options.page))
        return 0
    if options.play is not None:
        card.PLAYED[options.play](card.Setting.now())
        return 0
    if options.out is None:
        parser.error("--out or --page is required")
    out = options.out.absolute()
    if options.stage is not None:
        running.run_here(options.stage, out, Path(options.work), int(options.parent))
    names = [stage.name for stage in running.STAGES]
    stage_names = options.only.split(",") if options.only else names
    left_out = [name for name in options.skip.split(",") if name]
    unknown = sorted({*stage_names, *left_out} - {*names})
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}; there are {', '.join(names)}")
    if options.simulated is not None:
        card.use_simulated(options.simulated, out / "simulated", options.scale)
    chosen_names = set(stage_names) - set(left_out)
    chosen = [stage for stage in running.STAGES if stage.name in chosen_names]
    running.validate(out, chosen, options.minutes)
    for check in checks.judge(out):
        print(check)
    print(out / RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
