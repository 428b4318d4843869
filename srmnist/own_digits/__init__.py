"""Pictures of digits from outside MNIST: read, prepared, restored."""
