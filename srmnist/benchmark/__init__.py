"""Benchmarks: the engines beside other implementations, a GPU's kernels, and several processes."""
