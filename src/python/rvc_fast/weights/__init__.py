"""Model files -> arrays and configurations, without torch and without running anything a file says."""

from .checkpoint import KINDS, Checkpoint, load_checkpoint, save_packed

__all__ = ["KINDS", "Checkpoint", "load_checkpoint", "save_packed"]
