"""The model class of each kind of checkpoint."""

from __future__ import annotations

from typing import Any

from ..features.hubert import HubertModel
from ..pitch.rmvpe import Rmvpe
from ..synthesizer import Synthesizer

MODELS: dict[str, Any] = {"voice": Synthesizer, "hubert": HubertModel, "rmvpe": Rmvpe}
