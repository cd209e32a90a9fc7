"""Whether GPUs have their memory back after a run, as NVML reports it.

An engine that is gone gives its memory back, or something of it still lives: a child that nobody
found, or a driver in trouble. The next run would start on a fuller card. The supervisor asks in a
process of its own: a driver that hangs must not take it along.
"""

import time
from collections.abc import Mapping
from typing import Any

from llenergymeasure.processes import ChildError, call_in_child

LIMIT_S = 10.0
"""Longest wait for the memory: the driver takes well below a second when nothing is wrong."""

ANSWER_S = 30.0
POLL_S = 0.1

SLACK_BYTES = 200_000_000
"""A driver that has just worked may keep somewhat more of an idle card to itself than before."""


def wait_for_release_in_child(
    before_bytes: Mapping[str, int], limit_s: float = LIMIT_S
) -> dict[str, Any] | None:
    """Wait until the cards' memory is back where it was; return what is in use, card by card.

    Args:
        before_bytes: in use before the run, by UUID.
        limit_s: longest wait.

    Returns:
        By UUID: ``before_bytes``, ``after_bytes``, ``released``, ``waited_s``, and ``processes``
        that still compute there. ``{"unavailable": why}`` where NVML does not say; None without
        cards.
    """
    if not before_bytes:
        return None
    try:
        function = f"{__name__}:wait_for_release"
        return call_in_child(function, dict(before_bytes), limit_s, limit_s=limit_s + ANSWER_S)
    except ChildError as error:
        return {"unavailable": str(error)}


def unreleased_lines(release: Mapping[str, Any] | None) -> list[str]:
    """Return in words which cards still hold what a run had; empty where all is well."""
    if release is None or "unavailable" in release:
        return []
    return [
        f"GPU {uuid} still has {(card['after_bytes'] - card['before_bytes']) / 1e9:.1f} GB more in "
        f"use than before the run, {card['waited_s']:.0f} s after its end"
        + (f" (processes {', '.join(map(str, card['processes']))})" if card["processes"] else "")
        for uuid, card in release.items()
        if card["released"] is False
    ]


def wait_for_release(before_bytes: Mapping[str, int], limit_s: float) -> dict[str, Any]:
    """Do what :func:`wait_for_release_in_child` asks for, through NVML in this process."""
    from llenergymeasure.machine.gpus import inventory

    cards = {gpu.uuid: gpu for gpu in inventory.discover().gpus}
    start_s = time.monotonic()
    reports: dict[str, Any] = {}
    for uuid, before in before_bytes.items():
        while True:
            waited_s = time.monotonic() - start_s
            after = inventory.memory_used_bytes(cards[uuid]) if uuid in cards else None
            released = None if after is None else after <= before + SLACK_BYTES
            if released is not False or waited_s >= limit_s:
                break
            time.sleep(POLL_S)
        reports[uuid] = {
            "before_bytes": before,
            "after_bytes": after,
            "released": released,
            "waited_s": round(waited_s, 3),
            "processes": (
                inventory.known_compute_processes(cards[uuid]) if released is False else []
            ),
        }
    return reports
