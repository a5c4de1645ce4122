"""The nearest vectors of a voice's faiss index, and their blend into the content features."""

from .blend import blend
from .index import Index, load_index

__all__ = ["Index", "blend", "load_index"]
