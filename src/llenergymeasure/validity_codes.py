"""Every validity code of a run, with its meaning."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """What a validity code means.

    Attributes:
        disqualifies: whether it keeps a run out of the means; the run is still kept and shown.
        meaning: in a sentence.
    """

    disqualifies: bool
    meaning: str


VALIDITY: Mapping[str, Code] = {
    "channel_mismatch": Code(
        True,
        "The energy counter and the power readings disagreed clearly, so neither is trusted.",
    ),
    "computes_on_cpu": Code(
        True, "The engine computed on the CPU, and the energy is that of a GPU that it did not use."
    ),
    "counter_jump": Code(
        True, "The energy counter did not rise by what a device can draw within the window."
    ),
    "counter_reset": Code(
        True,
        "The energy counter started over within the window, or may have while it was not read.",
    ),
    "failed_requests": Code(True, "More than 1 % of the requests failed."),
    "foreign_requests": Code(
        True,
        "The server answered requests that the run did not send; their energy is in the run's.",
    ),
    "impossible_power": Code(
        True,
        "The sensor says a power that the device cannot draw: no reading of it is believed.",
    ),
    "limit_lifted": Code(
        True,
        "The power limit or the clock was above the study's within the window: somebody lifted it, "
        "or the driver unloaded (see persistence mode).",
    ),
    "mig_slice": Code(
        True, "The run had a slice of a card (MIG), and the energy is that of the whole card."
    ),
    "no_requests": Code(True, "Traffic was to come, and the window held no request and no answer."),
    "other_gpu": Code(
        True,
        "After the window no process was on the device that was measured, and others were on "
        "another GPU: the engine very likely computed there.",
    ),
    "other_process": Code(
        True,
        "Another process computed on the device during the window; its energy is in the run's.",
    ),
    "recorder_lost": Code(True, "The recording ends before the window does."),
    "sample_gap": Code(
        True, "The power sensor gave nothing, or nothing new, for too long in the window."
    ),
    "stalled": Code(
        True,
        "The machine was suspended, a process of the run was stopped, or a batch took far longer "
        "than its like: the window holds time in which nothing was done.",
    ),
    "buffered_stream": Code(
        False,
        "Answers came all at once, held back by the server or a proxy or read late by the client: "
        "the times between their tokens are not known.",
    ),
    "cached_prompts": Code(
        False,
        "The server found prompts in its prefix cache that the study asks it to compute: they cost "
        "less than they would.",
    ),
    "counter_unverified": Code(
        False,
        "Nothing shows whether the energy counter sees all of the time; the interval holds what it "
        "may have missed of a load that does not repeat in step with the readings that it may be "
        "the sum of, and the bound also of one that does.",
    ),
    "cpu_contended": Code(
        False,
        "Other processes, other virtual machines or a quota took part of the CPUs that the run may "
        "use; where the CPUs are metered the run has other_process too.",
    ),
    "cut_answers": Code(
        False,
        "More than 5 % of the answers that were to end by themselves reached max_output_tokens: "
        "their length is that setting's.",
    ),
    "empty_answers": Code(False, "More than 1 % of the answers had no token."),
    "graphics_process": Code(
        False, "A desktop, a game or the like drew on the device; its energy is in the run's."
    ),
    "late_sends": Code(False, "The client could not send all requests at their times."),
    "length_mismatch": Code(
        False,
        "More than 1 % of the answers had other than the tokens asked for: a request is not the "
        "work that it was to be.",
    ),
    "not_steady": Code(False, "Speed or power had not settled when the window began."),
    "over_saturated": Code(False, "Requests came faster than they were answered."),
    "quality_unavailable": Code(
        False,
        "The quality of the answers, which the study asks for, is not known, or was judged by "
        "other texts, tasks or another command than that of the study's last run; for "
        "scores of one judge measure the study under another name.",
    ),
    "remote_server": Code(
        False,
        "The server is not known to be on this machine (by its own names and addresses): on "
        "another, the energy is that of its client here, and says nothing about the model's.",
    ),
    "resolved_otherwise": Code(
        False, "The engine has another value in force for a setting than the study asks for."
    ),
    "rest_not_steady": Code(
        False,
        "The rest next to the work was not steady, or drew more than the work did, and net energy "
        "is as unsure.",
    ),
    "shared_node": Code(
        False,
        "Something computed on another GPU of the machine just before or after the window; it "
        "shares power supply, air and processors.",
    ),
    "short_window": Code(
        False,
        "The window was shorter than its sensor needs for the precision asked: its ends weigh "
        "more.",
    ),
    "split_poor_fit": Code(
        False,
        "Prefill and decode leave much of the energy between the counter's steps unexplained.",
    ),
    "temperature_drift": Code(
        False, "The device's temperature moved during the window or differed at its start."
    ),
    "thinking_mismatch": Code(
        False,
        "The server counted other tokens as thought than its answers show; what they show counts.",
    ),
    "throttled": Code(False, "The device lowered its clocks for heat or power during the window."),
    "token_mismatch": Code(
        False, "The server counted prompts otherwise than the model's tokenizer."
    ),
    "undercounted_answers": Code(
        False,
        "The server counted fewer tokens than the parts in which it sent its answers: energy per "
        "token may be too high.",
    ),
    "undersampled": Code(
        False,
        "The sensor does not see all of the time, and nothing is known to count what it misses; "
        "the interval holds what that may hide of a load that does not repeat in step with the "
        "readings, and the bound also of one that does.",
    ),
}
"""Every validity code. Those of the meter are decided in ``energy.validity``."""

DISQUALIFYING = frozenset(name for name, code in VALIDITY.items() if code.disqualifies)
"""Validity codes that keep a run out of the means; it is still kept and shown."""
