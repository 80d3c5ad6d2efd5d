"""The last line of an interrupted or forced invocation of Snakemake: what was kept, and how to go on."""

from __future__ import annotations

import atexit
import functools
import shlex
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import Any


@functools.cache  # once in a process
def explain_interruption() -> None:
    """From now on, Ctrl-C makes this process print one line at its end: that nothing is lost, and how to go on."""
    earlier = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: FrameType | None) -> None:
        _print_at_the_end()
        if callable(earlier):
            earlier(number, frame)

    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, interrupted)


@functools.cache  # Ctrl-C may be pressed again
def _print_at_the_end() -> None:
    atexit.register(_print_how_to_go_on)


def _print_how_to_go_on() -> None:
    command = shlex.join(["snakemake", *sys.argv[1:]])
    with suppress(OSError):
        print(
            f"\nInterrupted: complete results and saved states are kept; to continue, repeat the command: {command}",
            file=sys.stderr,
            flush=True,
        )


def explain_forcing(dag_settings: Any) -> None:
    """Print that complete runs were not computed anew, if the user has forced jobs (`-R`, `-f` or `-F`).

    Args:
        dag_settings: Snakemake's settings of the targets.
    """
    if dag_settings.forcerun or dag_settings.forcetargets or dag_settings.forceall:
        print(
            "Forced jobs (-R, -f or -F) of complete runs have only checked the files and computed nothing. To compute "
            "a run again, remove it first: "
            "python -m corelib clean results/STUDY/table1.csv TASK ROW --delete",
            file=sys.stderr,
            flush=True,
        )
