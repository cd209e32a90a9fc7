"""Merge the runs of one study's folder into its tables."""

import sys
from pathlib import Path

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.errors import in_one_line

if __name__ == "__main__":
    with in_one_line():
        write_tables(Path(sys.argv[1]), partial=False)
