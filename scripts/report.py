"""Write the report of one study's folder."""

import sys
from pathlib import Path

from llenergymeasure.errors import errors_as_messages
from llenergymeasure.report.page import write_report

if __name__ == "__main__":
    with errors_as_messages():
        write_report(Path(sys.argv[1]), partial=False)
