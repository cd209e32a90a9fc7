"""The result of a run, computed from what its processes left in its folder."""
