"""A study's results in the forms that others read."""
