"""A run whose engine is a server: what differs from batches in the engine's process."""

from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from llenergymeasure.backends.base import Backend
from llenergymeasure.backends.serving.engine import ServedEngine, open_server
from llenergymeasure.config.experiment import ExperimentConfig
from llenergymeasure.config.protocol import ProtocolSettings
from llenergymeasure.machine.gpus.inventory import Gpu
from llenergymeasure.results.layout import RunFolder
from llenergymeasure.run.engine.phase_marks import Marks
from llenergymeasure.run.engine.traffic_window import measure_traffic
from llenergymeasure.run.result.traffic_requests import traffic_table
from llenergymeasure.workload.conversations import TrafficPrompts


def load(
    backend: Backend, config: ExperimentConfig, cards: Sequence[Gpu], prompts: TrafficPrompts
) -> ServedEngine:
    """Start the engine's server, or find the one that runs, as ``config`` says for this cycle.

    Raises:
        BackendError: it has none, or that did not come up.
    """
    devices = tuple(card.uuid for card in cards)
    return open_server(backend, config, devices, prompts)


def measure(
    engine: ServedEngine,
    protocol: ProtocolSettings,
    marks: Marks,
    folder: RunFolder,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send the traffic and write its requests into the run's folder.

    Returns:
        The window as any run tells it, and what only traffic has.

    Raises:
        BackendError: the server ended.
    """
    window = measure_traffic(engine, protocol, marks)
    pq.write_table(traffic_table(window.sent, engine), folder.traffic)
    told = {
        "ramp_up": window.ramp_up,
        "gauges": window.gauges,
        "client_cpu_s": window.client_cpu_s,
    }
    return window.as_dict(), told
