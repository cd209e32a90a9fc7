"""The stages are imported as the command imports them."""

import sys

from support.studies import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
