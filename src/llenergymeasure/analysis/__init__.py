"""From many runs' records to tables and statistics."""
