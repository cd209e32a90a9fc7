"""The makers' peak rates of GPUs, by the name that the driver gives.

The figures are of the rows for bf16, which tensor cores accumulate in fp32 alone (PTX ISA,
``mma``); rows for fp16 may be of a faster accumulation in fp16.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """A maker's own figure.

    Attributes:
        flops_per_s: dense bf16 and fp16 operations a second, accumulating in fp32, no sparsity.
        source: where the maker says so.
    """

    flops_per_s: float
    source: str


def _dense(tera: float, source: str) -> Peak:
    """Return a rate that its maker states without sparsity."""
    return Peak(tera * 1e12, f"{source}: {tera:g} TFLOPS dense")


def _halved(tera: float, source: str) -> Peak:
    """Return a rate that its maker states with 2:4 sparsity, which doubles it."""
    return Peak(tera * 1e12 / 2, f"{source}: {tera:g} TFLOPS with sparsity, halved")


# The first that the card's name holds counts, so the narrower names stand before the wider.
_PEAKS: tuple[tuple[str, Peak], ...] = (
    ("GB200", _halved(5000, "NVIDIA GB200 NVL72 datasheet, a GPU's share")),
    ("B200", _halved(4500, "NVIDIA HGX B200 datasheet, a GPU's share")),
    ("H200 NVL", _halved(1671, "NVIDIA H200 datasheet")),
    ("H200", _halved(1979, "NVIDIA H200 datasheet")),
    ("GH200", _halved(1979, "NVIDIA GH200 datasheet")),
    ("H100 NVL", _halved(1671, "NVIDIA H100 datasheet")),
    ("H100 PCIe", _halved(1513, "NVIDIA H100 datasheet")),
    ("H100 80GB HBM3", _halved(1979, "NVIDIA H100 datasheet, SXM")),
    ("A100", _dense(312, "NVIDIA A100 datasheet")),
    ("A30", _dense(165, "NVIDIA A30 datasheet")),
    ("A40", _dense(149.7, "NVIDIA A40 datasheet")),
    ("A10", _dense(125, "NVIDIA A10 datasheet")),
    ("L40S", _dense(362.05, "NVIDIA L40S datasheet")),
    ("L40", _dense(181.05, "NVIDIA L40 datasheet")),
    ("L4", _halved(242, "NVIDIA L4 datasheet")),
    ("RTX 4090", _dense(165.2, "NVIDIA Ada GPU architecture whitepaper, appendix A")),
    ("RTX 3090", _dense(71, "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A")),
)

_OTHER_CARDS = frozenset({"Ti", "D", "SUPER", "Laptop", "MIG"})
"""Words after a known name that make it another card, or a part of one."""


def peak(name: str) -> Peak | None:
    """Return a card's peak rate; null where its maker's figure is not known here.

    Args:
        name: as NVML tells it, such as ``NVIDIA A100-SXM4-80GB``.
    """
    words = f" {name.replace('-', ' ')} "
    for known, rate in _PEAKS:
        _, found, rest = words.partition(f" {known} ")
        if found:
            return None if _OTHER_CARDS.intersection(rest.split()) else rate
    return None
