"""The nearest vectors of a voice's faiss index, and their blend into the content features."""

from .blend import blend, blend_array
from .index import Index, load_index

__all__ = ["Index", "blend", "blend_array", "load_index"]
