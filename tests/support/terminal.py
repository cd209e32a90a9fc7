"""``llem`` in front of a terminal, as a person has it."""

import os
import pty
import select
import sys
from collections.abc import Callable
from pathlib import Path

from support.studies import MAIN, environment


def at_a_terminal(
    folder: Path,
    *arguments: str,
    answer: Callable[[str], str | None] = lambda _: None,
    limit_s: float = 240,
) -> tuple[int, str]:
    """Run ``llem`` in front of a terminal of 100 columns; return how it ended and all it wrote.

    What ``answer`` returns for all it wrote so far is typed.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        variables = environment(COLUMNS="100")
        os.execve(sys.executable, [sys.executable, "-c", MAIN, *arguments], variables)
    output = ""
    while True:
        assert select.select([terminal], [], [], limit_s)[0], output
        try:
            output += os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the other side is closed
            break
        typed = answer(output)
        if typed is not None:
            os.write(terminal, typed.encode())
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), output
