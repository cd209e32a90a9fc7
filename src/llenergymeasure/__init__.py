"""LLenergyMeasure: what LLM inference costs in energy, with an error bar that is true."""

__version__ = "0.1.0"
