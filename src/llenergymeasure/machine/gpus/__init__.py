"""The GPUs of this machine: which there are, who uses them, and at which limits."""
