"""Other formats to HDF5 and back."""
