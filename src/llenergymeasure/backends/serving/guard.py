"""Stands between a run and its server: whoever ends first, nothing that the server started stays.

    python -m llenergymeasure.backends.serving.guard RUN_PID COMMAND …

Servers start workers, some of them in groups and sessions of their own, which outlive them where
they are killed. All descendants of this process come to it, and end with it: when the server ends,
when SIGTERM asks for the end, and when the run's process is gone.
"""

import os
import select
import signal
import subprocess
import sys

from llenergymeasure.processes import (
    SignalPipe,
    adopt_orphans,
    die_with_parent,
    exit_code,
    kill_descendants,
)

GRACE_S = 30.0
"""Seconds that a server has to end by itself after SIGTERM."""


def main() -> int:
    """Run the command; return its exit code."""
    run_pid, *command = sys.argv[1:]
    adopt_orphans()
    signals = SignalPipe()
    die_with_parent(signal.SIGTERM)
    try:
        run_fd = os.pidfd_open(int(run_pid))
    except ProcessLookupError:
        return 1
    if os.getppid() != int(run_pid):
        return 1
    server = subprocess.Popen(command, preexec_fn=die_with_parent)
    server_fd = os.pidfd_open(server.pid)
    if signals.handle in select.select([server_fd, signals.handle], [], [])[0]:
        # Asked is the whole group; without the run's process, whose last thread may end after the
        # one that started this, there is nobody to wait for.
        select.select([server_fd, run_fd], [], [], GRACE_S)
    code = server.poll()
    kill_descendants()
    return exit_code(-signal.SIGKILL if code is None else code)


if __name__ == "__main__":
    sys.exit(main())
