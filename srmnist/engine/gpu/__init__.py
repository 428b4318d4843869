"""The GPU engine: CUDA kernels for CuPy, the lists of their launches, and a captured training step."""
