"""These tests are for an environment with SGLang in it: run.sh makes one and starts them there."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sglang") is not None else ["test_*.py"]
