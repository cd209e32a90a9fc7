"""Write the report of one study's folder."""

import sys
from pathlib import Path

from llenergymeasure.errors import in_one_line
from llenergymeasure.report.page import write_report

if __name__ == "__main__":
    with in_one_line():
        write_report(Path(sys.argv[1]), partial=False)
