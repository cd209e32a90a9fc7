"""What a run leaves behind: its record, its outcome, and how they are written and read."""
