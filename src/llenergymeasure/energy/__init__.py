"""From samples to joules: knots, intervals, rest, readings, and reasons to doubt them. Pure."""
