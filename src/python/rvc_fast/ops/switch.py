"""A switch that a thread turns on for itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Switch(threading.local):
    """Off (`is_on` false), but for a thread that is inside `on()`."""

    is_on = False

    @contextmanager
    def on(self) -> Iterator[None]:
        """Turn it on inside; afterwards it is as it was."""
        before, self.is_on = self.is_on, True
        try:
            yield
        finally:
            self.is_on = before
