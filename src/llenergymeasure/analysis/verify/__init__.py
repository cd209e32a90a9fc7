"""Recomputing a study's figures from what was recorded, and saying which do not match."""
