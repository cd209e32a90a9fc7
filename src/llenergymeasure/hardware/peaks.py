"""The makers' peak rates of GPUs, by the name that the driver gives."""

from dataclasses import dataclass

_AMPERE = "NVIDIA A100 Tensor Core GPU datasheet"
_HOPPER = "NVIDIA H100 Tensor Core GPU datasheet, halved: it states the rate with sparsity"


@dataclass(frozen=True)
class Peak:
    """A maker's own figure.

    Attributes:
        flops_per_s: dense bf16 and fp16 operations a second, accumulating in fp32, no sparsity.
        source: where the maker says so.
    """

    flops_per_s: float
    source: str


# The first that the card's name holds counts, so the narrower names stand before the wider.
_PEAKS: tuple[tuple[str, Peak], ...] = (
    ("B200", Peak(2.25e15, "NVIDIA HGX B200 datasheet, halved: it states it with sparsity")),
    ("H200 NVL", Peak(835.5e12, "NVIDIA H200 datasheet, halved: it states it with sparsity")),
    ("H200", Peak(989.5e12, "NVIDIA H200 datasheet, halved: it states it with sparsity")),
    ("GH200", Peak(989.5e12, "NVIDIA GH200 datasheet, halved: it states it with sparsity")),
    ("H100 NVL", Peak(835.5e12, _HOPPER)),
    ("H100 PCIe", Peak(756.5e12, _HOPPER)),
    ("H100 80GB HBM3", Peak(989.5e12, _HOPPER)),
    ("A100", Peak(312e12, _AMPERE)),
    ("A30", Peak(165e12, "NVIDIA A30 datasheet")),
    ("A40", Peak(149.7e12, "NVIDIA A40 datasheet")),
    ("A10", Peak(125e12, "NVIDIA A10 datasheet")),
    ("L40S", Peak(362.05e12, "NVIDIA L40S datasheet")),
    ("L40", Peak(181.05e12, "NVIDIA L40 datasheet")),
    ("L4", Peak(121e12, "NVIDIA L4 datasheet, halved: it states it with sparsity")),
    ("RTX 4090", Peak(165.2e12, "NVIDIA Ada GPU architecture whitepaper, appendix A")),
    ("RTX 3090", Peak(71e12, "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A")),
)


def peak(name: str) -> Peak | None:
    """Return a card's peak rate; null where its maker's figure is not known here.

    Args:
        name: as NVML tells it, such as ``NVIDIA A100-SXM4-80GB``.
    """
    words = f" {name.replace('-', ' ')} "
    for known, rate in _PEAKS:
        if f" {known} " in words:
            return rate
    return None
