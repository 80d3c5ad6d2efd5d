"""A limit of time for code that might not end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS = 20
"""For one example, on a machine that does other things as well; the shipped studies take one."""


@contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    """Fails, instead of waiting, where something takes for ever."""

    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"still not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
