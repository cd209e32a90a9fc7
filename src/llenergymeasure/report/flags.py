"""What the validity codes mean, for whoever reads a table or the page."""

from llenergymeasure.units import DISQUALIFYING

MEANINGS = {
    "channel_mismatch": "The energy counter and the integral of power disagreed by more than the "
    "protocol allows, so neither is trusted.",
    "other_process": "Another process computed on the same device during the window; its energy "
    "cannot be told apart.",
    "recorder_lost": "The recorder ended before the window did.",
    "sample_gap": "The sensor gave nothing for longer than the protocol allows inside the window.",
    "not_comparable": "The run answered other prompts or gave another number of tokens than the "
    "runs it stands beside.",
    "throttled": "The device lowered its clocks for heat or power during the window.",
    "short_window": "The window was shorter than its sensor needs for the precision asked: its "
    "ends weigh more.",
    "temperature_drift": "The device's temperature moved during the window or differed at its "
    "start.",
    "undersampled": "The sensor does not see all of the time, and nothing is known to count what "
    "it misses; the interval holds what that may hide.",
    "shared_node": "Something computed on another GPU of the machine just before or after the "
    "window; it shares power supply, air and processors.",
    "not_steady": "Speed or power had not settled when the window began.",
    "failed_requests": "More than 1 % of the requests failed.",
    "late_sends": "The client could not send all requests at their times.",
    "over_saturated": "Requests came faster than they were answered.",
    "token_mismatch": "The server counted prompts otherwise than the model's tokenizer.",
}


def meaning(code: str) -> str:
    """Return one code's meaning as a sentence."""
    return MEANINGS.get(code, "A code of another version; see that version's documentation.")


def consequence(code: str) -> str:
    """Return what the code does to the run: left out of means, or shown only."""
    return "left out of means" if code in DISQUALIFYING else "in means, shown"
