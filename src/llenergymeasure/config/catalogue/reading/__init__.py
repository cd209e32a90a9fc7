"""How a catalogue is read from an engine's release: its Python sources, never imported or run."""
