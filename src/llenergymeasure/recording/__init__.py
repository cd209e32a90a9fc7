"""The recorder: its process, the file it streams to, and how it is started."""
