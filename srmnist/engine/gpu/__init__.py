"""The GPU engine: CUDA kernels for CuPy, the lists of their launches, and what is captured of these."""
