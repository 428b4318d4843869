"""Functions and classes that several test files use."""
