"""The Python interface: one number, a study, finished results, and the meter by itself.

What the package's own ``__all__`` names is stable; everything else may change.
"""
