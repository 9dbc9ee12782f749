"""The tasks of our own."""
