"""Merge the runs of one study's folder into its tables."""

import sys
from pathlib import Path

from llenergymeasure.analysis.tables import write_tables

if __name__ == "__main__":
    write_tables(Path(sys.argv[1]), partial=False)
