"""Progress lines in the log of a job: steps done, rate, and estimated time left."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import SupportsFloat

log = logging.getLogger(__name__)

MIN_INTERVAL, MAX_INTERVAL = 10.0, 600.0  # minimum and maximum interval between two lines, in seconds

INTERVAL_FRACTION = 0.05  # the interval as a fraction of the time elapsed, within these limits


class Progress:
    """Logs step, loss, rate and time left, at intervals that grow so that the log of a long run stays readable.

    Args:
        name: noun in the log lines, such as `steps`.
        total: number of steps.
        start: number of steps done by earlier attempts.
    """

    def __init__(self, name: str, total: int, start: int = 0) -> None:
        self.name, self.total, self.start = name, total, start
        self._began = self._last = time.monotonic()

    def report(self, done: int, loss: SupportsFloat | None = None) -> bool:
        """Log the progress after `done` of `total` steps, if the interval has passed or all steps are done.

        Returns whether it did. `loss` is converted to a number only then: on a GPU, this waits for the step.
        """
        now = time.monotonic()
        elapsed = now - self._began
        if done < self.total and now - self._last < min(max(MIN_INTERVAL, INTERVAL_FRACTION * elapsed), MAX_INTERVAL):
            return False
        self._last = now
        rate = (done - self.start) / max(elapsed, 1e-9)
        remaining = timedelta(seconds=round((self.total - done) / max(rate, 1e-9)))
        shown_loss = "" if loss is None else f", loss {float(loss):.5f}"
        log.info("%s %d/%d%s, %.1f/s, %s left", self.name, done, self.total, shown_loss, rate, remaining)
        return True
