"""The machine: devices by UUID, locks, limits, and a record of the environment."""
