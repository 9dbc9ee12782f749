"""The additive parts of a loss, one a file."""
