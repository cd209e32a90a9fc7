"""Measure one run of the vllm backend, in its own process and image."""

from llenergymeasure.run.measure_script import run_as_script

if __name__ == "__main__":
    run_as_script("vllm")
