"""The simulated card, and the helpers that tests drive it with."""
