"""The CPU engine: kernels that Numba compiles, and the threads and buffers that they run on."""
