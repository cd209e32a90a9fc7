"""Every argument of each engine, read from its release: names, types, defaults, choices, help."""
