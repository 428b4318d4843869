"""Evaluation: measures of a trained model on a test set, beside simpler ways to enlarge images."""
