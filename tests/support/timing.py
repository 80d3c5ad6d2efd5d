"""A time limit for code that might not end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS = 20
"""Seconds for one example on a busy machine; the shipped studies take one second."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Fail after a time limit, instead of waiting for ever."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"still not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
