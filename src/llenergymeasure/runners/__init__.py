"""How a run's process is started, watched and ended."""
