"""The Snakemake glue: what the Snakefile asks, and what its hooks do."""

from llenergymeasure.workflow.study import OpenStudy, open_study

__all__ = ["OpenStudy", "open_study"]
