"""Short rests next to a window, which make the energy at its ends exact.

An energy counter steps about ten times a second, and what was drawn between two steps is not known.
Where nothing is given to do before the work and after it, the last step before and the first one
after bound what the work drew. Standard library only: an engine's process imports it.
"""

MARGINS = ("margin_before", "margin_after")
"""The phases' names."""

MARGIN_S = 0.4
"""How long each lasts: four steps of a GPU's counter."""
