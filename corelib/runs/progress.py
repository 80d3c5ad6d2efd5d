"""What a job says while it works: how far it is, how fast, and how long it will take."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

log = logging.getLogger(__name__)

SOONEST, LATEST = 10.0, 600.0  # seconds between two lines

SHARE = 0.05  # of the time that the work has taken so far


class Progress:
    """Logs step, loss, rate and time left: often at first, and rarely in a long run, whose log stays readable."""

    def __init__(self, name: str, total: int, start: int = 0) -> None:
        self.name, self.total, self.start = name, total, start
        self._began = self._last = time.monotonic()

    def report(self, done: int, loss: float | None = None) -> None:
        """Say where the work stands after `done` of `total` steps."""
        now = time.monotonic()
        taken = now - self._began
        if done < self.total and now - self._last < min(max(SOONEST, SHARE * taken), LATEST):
            return
        self._last = now
        rate = (done - self.start) / max(taken, 1e-9)
        left = timedelta(seconds=round((self.total - done) / max(rate, 1e-9)))
        shown_loss = "" if loss is None else f", loss {loss:.5f}"
        log.info("%s %d/%d%s, %.1f/s, %s left", self.name, done, self.total, shown_loss, rate, left)
