"""What a trained model is worth: measures on a test set, beside simpler ways to enlarge."""
