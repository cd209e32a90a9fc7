"""The machine that a run is on: its host, its software, its GPUs."""
