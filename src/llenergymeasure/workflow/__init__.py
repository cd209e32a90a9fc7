"""The Snakemake glue: what the Snakefile asks, what its hooks do, and how it is driven."""
