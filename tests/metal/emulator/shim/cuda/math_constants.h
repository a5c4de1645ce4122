// Everything is in ../cuda.h.
