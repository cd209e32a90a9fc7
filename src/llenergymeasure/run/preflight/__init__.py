"""Checks before a run: all that would make it fail or mislead, before any GPU time."""
