"""Tables and statistics from many runs' records."""
