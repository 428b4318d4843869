"""The CUDA kernels on the CPU: compiled by a C++ compiler, run block by block and thread by thread."""
