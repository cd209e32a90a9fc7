"""What work costs the processor, so that two amounts of it can be compared."""

import gc
import time
from collections.abc import Callable


def cpu_s(work: Callable[[], object], times: int = 3) -> float:
    """Return the least processor time of several calls, without what collecting garbage takes.

    Nothing is collected before either: in a process that has loaded an engine that takes longer
    than the work.
    """
    return min(_once_s(work) for _ in range(times))


def _once_s(work: Callable[[], object]) -> float:
    gc.disable()
    try:
        began_s = time.process_time()
        work()
        return time.process_time() - began_s
    finally:
        gc.enable()
