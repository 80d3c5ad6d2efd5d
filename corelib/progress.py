"""What a job says while it works: how far it is, how fast, and how long it will take."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)


class Progress:
    """Logs step, loss, rate and time left at most every `seconds_between` seconds."""

    def __init__(self, name: str, total: int, start: int = 0, seconds_between: float = 10.0) -> None:
        self.name, self.total, self.start = name, total, start
        self.seconds_between = seconds_between
        self._began = self._last = time.monotonic()

    def report(self, done: int, loss: float | None = None) -> None:
        """Say where the work stands after `done` of `total` steps."""
        now = time.monotonic()
        if done < self.total and now - self._last < self.seconds_between:
            return
        self._last = now
        rate = (done - self.start) / max(now - self._began, 1e-9)
        left = (self.total - done) / max(rate, 1e-9)
        shown_loss = "" if loss is None else f", loss {loss:.5f}"
        log.info("%s %d/%d%s, %.1f/s, %d s left", self.name, done, self.total, shown_loss, rate, left)
