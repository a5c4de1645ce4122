"""Live conversion: a sound is converted while it arrives, hop by hop. `Converter.stream` makes a `Stream`.

What follows the ears of a listener is in one direction: samples -> 16 kHz (`signal`) -> features (`features`) and pitch
(`pitch`) -> the voice (`speech`) -> samples (`stream`). `session` runs a stream against a clock.
"""

from .session import Session, SessionStats
from .speech import LiveVoice, Models
from .stream import Latency, Stats, Stream

__all__ = ["Latency", "LiveVoice", "Models", "Session", "SessionStats", "Stats", "Stream"]
