"""Runs in an Apptainer or a Docker container, and the images they need.

Everything here is done on the machine that starts a run; what is inside is ``run``'s. The two
meet in files, in the exit code and in ``image_probe.py``, which looks around in an image.
"""
