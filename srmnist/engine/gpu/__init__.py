"""The GPU engine: CUDA kernels for CuPy, their launches as data, and what trains and evaluates with them."""
