"""A run: the loop, its directory, checkpoints, logs."""
