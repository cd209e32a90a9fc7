"""One run from start to end: preflight, idle, load, warm-up, window, teardown, result."""
