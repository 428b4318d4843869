"""The GPU engine: CUDA kernels for CuPy, the lists of their launches, and training step and evaluation, captured."""
