"""The model under test: where its files are, and what its shape says about cost."""
