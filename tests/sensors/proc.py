"""A made-up /proc with a run's processes and a stranger."""

import shutil
from pathlib import Path

RUN, ENGINE, WORKER, OTHER = 4_000_100, 4_000_200, 4_000_300, 4_000_900


class Proc:
    """A folder in place of /proc: the run's supervisor, its engine, a worker of that, another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.process(1, 0, "init")
        self.process(RUN, 1)
        self.process(ENGINE, RUN)
        self.process(WORKER, ENGINE)
        self.process(OTHER, 1, "trainer")

    def process(
        self,
        pid: int,
        parent: int,
        name: str = "python",
        *,
        state: str = "S",
        ticks: tuple[int, ...] = (0, 0, 0, 0),
        started: int = 5,
        flags: int = 0x400000,
        cgroup: str = "0::/\n",
    ) -> None:
        """Begin a process, or have one be another way."""
        folder = self.folder / str(pid)
        folder.mkdir(exist_ok=True)
        fields = [state, parent, *[0] * 4, flags, *[0] * 4, *ticks, *[0] * 4, started, *[0] * 3]
        (folder / "stat").write_text(f"{pid} ({name} (x)) {' '.join(map(str, fields))}")
        (folder / "comm").write_text(f"{name}\n")
        (folder / "cgroup").write_text(cgroup)

    def end(self, pid: int) -> None:
        """Have a process be gone."""
        shutil.rmtree(self.folder / str(pid))
