"""What every room stands on: errors, files, seeds, several processes."""
