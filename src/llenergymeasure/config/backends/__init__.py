"""The settings that belong to one engine alone, a file each."""
