"""The energy of one run, as it is in ``result.json``: readings, what follows, and its parts."""

from typing import Literal

from pydantic import Field

from llenergymeasure.results.base import Record
from llenergymeasure.units import Kind, Scope


class Reading(Record):
    """The energy of the window as one sensor saw it on one device.

    ``gross_u95_j`` and ``net_u95_j`` are half widths of the 95 % intervals; ``bound_j`` is what no
    load within the device's power range exceeds; ``u_sys_j`` the half width of the band of the
    sensor's gain, kept apart because repeats do not shrink it.
    """

    device: str = Field(description="GPU UUID, or a name such as cpu:package-0")
    sensor: str
    kind: Kind
    scope: Scope
    channel: str = Field(description="counter, power, or model")
    headline: bool = Field(
        default=False, description="one reading a device is the headline: readings with it add up"
    )
    gross_j: float | None
    idle_j: float | None = None
    net_j: float | None = None
    u95_j: float | None = Field(default=None, description="gross_u95_j, for one release more")
    gross_u95_j: float | None = None
    net_u95_j: float | None = None
    shared_u95_j: float | None = Field(
        default=None, description="of gross_u95_j, what repeats share: it does not average out"
    )
    bound_j: float | None = None
    u_sys_j: float | None = None
    unavailable: str | None = Field(default=None, description="why gross_j is null")


class PhaseEnergy(Record):
    """Headline energy of one phase."""

    phase: str
    duration_s: float
    energy_j: float | None
    u95_j: float | None = None


class TokenSplit(Record):
    """Energy of prefill and decode apart; a request's first output token counts to prefill."""

    method: Literal["ticks", "marks", "regression"] | None = Field(
        default=None,
        description="how prefill and decode were separated: ticks (the counter's steps); marks or "
        "regression in results of earlier versions",
    )
    prefill_per_input_token_j: float | None = None
    prefill_u95_j: float | None = Field(None, description="95 % half width, per input token")
    decode_per_output_token_j: float | None = None
    decode_u95_j: float | None = Field(None, description="95 % half width, per output token")
    correlation: float | None = Field(default=None, description="correlation of the two errors")
    unexplained_rel: float | None = Field(
        default=None,
        description="what the phases leave of the energy between two of the counter's steps, "
        "root mean square, relative",
    )
    unavailable: str | None = Field(default=None, description="why they cannot be separated")


class ThinkingEnergy(Record):
    """Energy of what the model thought and of what it answered."""

    method: Literal["split", "tokens"] = Field(
        description="split: decode's energy over the time of each, prefill apart; tokens: every "
        "output token has the same part of the window's energy, as what one of each costs cannot "
        "be separated, and the intervals are that of the window's energy alone"
    )
    thinking_j: float = Field(description="energy of the output tokens of thought, in J")
    thinking_u95_j: float | None = Field(
        default=None, description="half width of its 95 % interval"
    )
    answer_j: float = Field(description="energy of the other output tokens, in J")
    answer_u95_j: float | None = Field(default=None, description="half width of its 95 % interval")


class Footprint(Record):
    """What the headline energy meant outside, by what the study declared when it ran."""

    energy_site_kwh: float = Field(description="energy of the window times pue")
    pue: float
    grid_gco2e_per_kwh: float | None = None
    carbon_gco2e: float | None = None
    carbon_per_1000_requests_gco2e: float | None = None
    price_per_kwh: float | None = None
    currency: str | None = None
    cost: float | None = None
    cost_per_1000_requests: float | None = None
    source: str | None = Field(default=None, description="where the declared figures are from")


class NodeEnergy(Record):
    """Energy of the window of the whole machine at its plug, next to that of its devices.

    It is never added to theirs: it holds them, and power supplies, fans and all the rest.
    """

    gross_j: float | None = Field(
        default=None, description="energy of the window of the whole machine at its plug"
    )
    gross_u95_j: float | None = Field(
        default=None, description="half width of its 95 % interval; the meter's gain is not in it"
    )
    u_sys_j: float | None = Field(default=None, description="half width of the meter's gain band")
    lag_s: float | None = Field(
        default=None,
        description="how late the meter shows a step of the load; taken into account; negative if "
        "its clock is behind",
    )
    lag_u95_s: float | None = Field(default=None, description="half width of its 95 % interval")
    devices_j: float | None = Field(
        default=None, description="energy of the measured GPUs, CPUs and memory together"
    )
    devices: list[str] = Field(default_factory=list, description="which they are")
    ratio: float | None = Field(
        default=None, description="energy of the whole machine over that of its measured devices"
    )
    ratio_low: float | None = Field(
        default=None, description="least ratio that intervals and gains of both allow at once"
    )
    ratio_high: float | None = Field(default=None, description="most that they allow at once")
    ratio_unavailable: str | None = Field(default=None, description="why there is no ratio")
    notes: list[str] = Field(
        default_factory=list, description="missing readings, a slow meter, a clock that is behind"
    )
    unavailable: str | None = Field(default=None, description="why gross_j is null")


class Energy(Record):
    """All readings of the window and what follows from the headline ones."""

    kind: Kind | None = Field(description="measured or estimated; null if there is no energy")
    source: str | None = Field(description="sensor of the headline")
    scopes: list[Scope] = Field(
        default_factory=list, description="what the headline covers, such as gpu, or cpu and dram"
    )
    readings: list[Reading]
    gross_j: float | None
    net_j: float | None = None
    u95_j: float | None = Field(
        default=None,
        description="half width of the 95 % interval of the gross energy; the sensor's gain is "
        "not in it",
    )
    net_u95_j: float | None = None
    shared_u95_j: float | None = Field(
        default=None,
        description="of u95_j, what repeats share (time not seen, channels that disagree, what "
        "windows that are cut alike lose at their ends); it does not average out",
    )
    bound_j: float | None = None
    u_sys_j: float | None = None
    power_mean_w: float | None = None
    per_output_token_j: float | None = None
    per_input_token_j: float | None = None
    per_request_j: float | None = None
    per_1000_requests_wh: float | None = None
    split: TokenSplit | None = None
    thinking: ThinkingEnergy | None = Field(
        default=None, description="null where no answer held thought"
    )
    footprint: Footprint | None = None
    phases: list[PhaseEnergy] = Field(default_factory=list)
    node: NodeEnergy | None = Field(
        default=None, description="null where no meter of the whole machine was named"
    )
    unavailable: str | None = Field(default=None, description="why there is no energy")
