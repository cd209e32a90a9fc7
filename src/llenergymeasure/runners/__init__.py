"""Where a run's process lives: on the machine itself, in an Apptainer or in a Docker container.

Everything here is done on the machine that starts a run; what is inside is ``measure``'s. The two
meet in files, in the exit code and in ``inside.py``, which looks around in an image.
"""
