"""Merge the runs of one study's folder into its tables."""

import sys
from pathlib import Path

from llenergymeasure.analysis.tables import write_tables
from llenergymeasure.errors import errors_as_messages

if __name__ == "__main__":
    with errors_as_messages():
        write_tables(Path(sys.argv[1]), partial=False)
