"""The commands of `pixelrl`, one module each."""
