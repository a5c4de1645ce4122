"""Content features and pitch -> waveform: text encoder, flow, and four decoders."""

from .config import SynthesizerConfig
from .model import Synthesizer, load_voice

__all__ = ["Synthesizer", "SynthesizerConfig", "load_voice"]
