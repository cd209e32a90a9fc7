"""The makers' peak rates of GPUs, by the name that the driver gives.

The figures are of the rows for bf16, which tensor cores accumulate in fp32 alone (PTX ISA,
``mma``); rows for fp16 may be of a faster accumulation in fp16.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """A maker's own figure.

    Attributes:
        flops_per_s: dense bf16 and fp16 operations per second, accumulating in fp32, no sparsity.
        bytes_per_s: of its memory; where cards of the name differ, the least.
        source: where the maker says so.
    """

    flops_per_s: float
    bytes_per_s: float
    source: str


def _dense(tera: float, giga: float, source: str) -> Peak:
    """Return rates whose maker states operations without sparsity; memory in GB a second."""
    return Peak(tera * 1e12, giga * 1e9, f"{source}: {tera:g} TFLOPS dense")


def _halved(tera: float, giga: float, source: str) -> Peak:
    """Return rates whose maker states operations with 2:4 sparsity, which doubles them."""
    return Peak(tera * 1e12 / 2, giga * 1e9, f"{source}: {tera:g} TFLOPS with sparsity, halved")


# The first that the card's name holds counts, so the narrower names stand before the wider.
_PEAKS: tuple[tuple[str, Peak], ...] = (
    ("GB200", _halved(5000, 8000, "NVIDIA GB200 NVL72 datasheet, a GPU's share")),
    ("B200", _halved(4500, 7700, "NVIDIA HGX B200 datasheet, a GPU's share")),
    ("H200 NVL", _halved(1671, 4800, "NVIDIA H200 datasheet")),
    ("H200", _halved(1979, 4800, "NVIDIA H200 datasheet")),
    ("GH200", _halved(1979, 4000, "NVIDIA GH200 datasheet")),
    ("H100 NVL", _halved(1671, 3900, "NVIDIA H100 datasheet")),
    ("H100 PCIe", _halved(1513, 2000, "NVIDIA H100 datasheet")),
    ("H100 80GB HBM3", _halved(1979, 3350, "NVIDIA H100 datasheet, SXM")),
    ("A100", _dense(312, 1555, "NVIDIA A100 datasheet")),
    ("A30", _dense(165, 933, "NVIDIA A30 datasheet")),
    ("A40", _dense(149.7, 696, "NVIDIA A40 datasheet")),
    ("A10", _dense(125, 600, "NVIDIA A10 datasheet")),
    ("L40S", _dense(362.05, 864, "NVIDIA L40S datasheet")),
    ("L40", _dense(181.05, 864, "NVIDIA L40 datasheet")),
    ("L4", _halved(242, 300, "NVIDIA L4 datasheet")),
    ("RTX 4090", _dense(165.2, 1008, "NVIDIA Ada GPU architecture whitepaper, appendix A")),
    ("RTX 3090", _dense(71, 936, "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A")),
)

_OTHER_CARDS = frozenset({"Ti", "D", "SUPER", "Laptop", "MIG"})
"""Words after a known name that make it another card, or a part of one."""


def peak(name: str) -> Peak | None:
    """Return a card's peak rate; None where its maker's figure is not known here.

    Args:
        name: as NVML reports it, such as ``NVIDIA A100-SXM4-80GB``.
    """
    words = f" {name.replace('-', ' ')} "
    for card, rate in _PEAKS:
        _, match, rest = words.partition(f" {card} ")
        if match:
            return None if _OTHER_CARDS.intersection(rest.split()) else rate
    return None
