"""Run the engine of one run in Apptainer, for a supervisor that works outside of it.

It becomes ``apptainer exec``: signals, exit code and death are the container's own. What the
container is to see stands in variables that the workflow has set (:mod:`.apptainer`).
"""

import argparse
import os
import sys
from pathlib import Path

from llenergymeasure.containers.apptainer import environment_inside
from llenergymeasure.containers.runner_choice import apptainer_command
from llenergymeasure.containers.surroundings import engine_command
from llenergymeasure.containers.variables import inside_variables
from llenergymeasure.errors import EXIT_FAILED
from llenergymeasure.results.layout import RunFolder


def main(arguments: list[str] | None = None) -> int:
    """Become the container; return only where there is no Apptainer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", required=True)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--watch", type=int, required=True, help="end the run with this process")
    options = parser.parse_args(arguments)
    command = apptainer_command()
    if command is not None:
        folder = RunFolder(options.out.absolute())
        call = [command, "--silent", "exec", "--home", str(Path.cwd()), options.image]
        # The supervisor's choice of cards is younger than what the workflow has set.
        variables = os.environ | environment_inside(inside_variables(os.environ))
        os.execvpe(command, [*call, *engine_command(folder.path, options.watch)], variables)
    print("there is no command apptainer here: install Apptainer", file=sys.stderr)
    return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
