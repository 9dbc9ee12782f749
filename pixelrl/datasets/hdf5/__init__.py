"""robomimic's HDF5: read, checked, written."""
