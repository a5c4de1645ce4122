"""Live conversion: a sound is converted while it arrives, hop by hop. `Converter.stream` makes a `Stream`.

The modules follow the way of the sound: `signal` brings samples to 16 kHz, `features` and `pitch` tell what is said and how
high, `speech` renders the voice of one hop, `stream` gives samples back. `session` runs a stream against a clock.
"""

from .session import Session, SessionStats
from .speech import LiveVoice, Models
from .stream import Latency, Stats, Stream

__all__ = ["Latency", "LiveVoice", "Models", "Session", "SessionStats", "Stats", "Stream"]
