"""The server that a run sends its traffic to: its start, and whether it is idle."""

import os
from collections.abc import Sequence
from pathlib import Path

from llenergymeasure.backends.base import Backend, Engine
from llenergymeasure.backends.serving.engine import ServedEngine
from llenergymeasure.backends.serving.listener import server_root
from llenergymeasure.backends.serving.process import free_port
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.files import write_text
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.workload.traffic_prompts import TrafficPrompts


def start_server(
    backend: Backend,
    config: ExperimentConfig,
    cards: Sequence[Gpu],
    prompts: TrafficPrompts,
    engine_pid_file: Path,
) -> ServedEngine:
    """Start a backend's server, or connect to the one that is running already."""
    command = backend.server(config, free_port())
    if not command.argv:
        # What an external server does on a GPU is the run's own work.
        write_text(engine_pid_file, str(server_root(command.base_url) or os.getpid()))
    return ServedEngine(command, config, tuple(card.uuid for card in cards), prompts)


def is_idle(engine: Engine) -> bool:
    """Return whether a server is idle: it may still work on a request that the client gave up."""
    return isinstance(engine, ServedEngine) and engine.answered_all and engine.exit_code() is None
