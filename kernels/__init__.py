"""Triton kernels, imported as `fastseg.kernels` (an installed package: the mapping is in setup.py)."""

if __name__ != "fastseg.kernels":
    raise ImportError("use fastseg.kernels, after installing fastseg (pip install --no-build-isolation -e .)")
