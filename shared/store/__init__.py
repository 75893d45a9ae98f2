"""Files of a cache: paths, locks, whole writes, and the Zarr and HDF5 stores."""
