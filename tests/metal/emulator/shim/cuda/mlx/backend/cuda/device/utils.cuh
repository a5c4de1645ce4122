// Everything is in shim/cuda.h.
