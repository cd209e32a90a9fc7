"""The engine's process of a run: its phases, from preflight to release."""
