"""Paired measurements of two ways to do the same work, the peak of a device, and the cost of processes."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

PR_SET_CHILD_SUBREAPER = 36
"""Linux' number of the call that makes this process the parent of orphans below it."""


@dataclass(frozen=True)
class Cost:
    """What some work has cost.

    Attributes:
        cpu: CPU time in seconds, of all threads and processes.
        wall: wall time in seconds.
        peak_mib: peak memory of the largest process in MiB; 0 if it was not measured.
    """

    cpu: float
    wall: float
    peak_mib: float = 0.0


@dataclass(frozen=True)
class Side:
    """One way to do the work: `act` does `amount` units of it."""

    act: Callable[[], object]
    amount: float


@dataclass(frozen=True)
class Comparison:
    """Two ways to do the same work.

    Attributes:
        name: the work.
        unit: one unit of it, such as "step".
        is_rate: whether units per second are reported, or else seconds per unit.
        note: what the reader has to know, for the report.
        flop: whether the floating-point operations are counted and compared with the device's peak.
        warm_up: whether each side runs once before it is measured; processes of their own do not need it.
    """

    name: str
    unit: str
    ours: Side
    reference: Side
    is_rate: bool = True
    note: str = ""
    flop: bool = False
    warm_up: bool = True


@dataclass(frozen=True)
class Result:
    """The measurements of one comparison.

    Attributes:
        comparison: the comparison.
        ours, reference: the cost of a unit, once for each pair.
        flop: floating-point operations of a unit by side ("ours", "reference"), if they were counted.
    """

    comparison: Comparison
    ours: list[Cost]
    reference: list[Cost]
    flop: Mapping[str, float] = field(default_factory=dict)

    def ratios(self, clock: str) -> list[float]:
        """The reference's time over ours in each pair; `clock` is "cpu" or "wall"."""
        pairs = zip(self.ours, self.reference, strict=True)
        return [getattr(theirs, clock) / getattr(ours, clock) for ours, theirs in pairs]

    def seconds(self, side: str, clock: str) -> float:
        """The median time of a unit in seconds; `side` is "ours" or "reference"."""
        return statistics.median(getattr(cost, clock) for cost in getattr(self, side))


def measure(comparison: Comparison, pairs: int) -> Result:
    """Measure both sides in turn, `pairs` times, beginning with the other side in each pair."""
    sides = {"ours": comparison.ours, "reference": comparison.reference}
    flop = {}
    for name, side in sides.items():
        if comparison.flop:
            with FlopCounterMode(display=False) as counter:
                side.act()
            flop[name] = counter.get_total_flops() / side.amount
        elif comparison.warm_up:
            side.act()
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for pair in range(pairs):
        for name in list(sides) if pair % 2 == 0 else reversed(sides):
            cost = timed(sides[name].act)
            amount = sides[name].amount
            costs[name].append(Cost(cost.cpu / amount, cost.wall / amount, cost.peak_mib))
    return Result(comparison, costs["ours"], costs["reference"], flop)


def timed(act: Callable[[], object]) -> Cost:
    """The cost of a call; one that returns a `Cost` has measured it itself."""
    synchronize()
    cpu, wall = time.process_time(), time.monotonic()
    outcome = act()
    synchronize()
    return outcome if isinstance(outcome, Cost) else Cost(time.process_time() - cpu, time.monotonic() - wall)


def synchronize() -> None:
    """Wait until the GPU has done its work, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_peak(device: str, dtype: torch.dtype, side: int, repetitions: int = 10) -> float:
    """The largest rate, in FLOP per second of wall time, at which a device multiplies square matrices."""
    first = torch.randn(side, side, device=device, dtype=dtype)
    second = torch.randn(side, side, device=device, dtype=dtype)
    torch.mm(first, second)
    best = 0.0
    for _ in range(repetitions):
        synchronize()
        began = time.process_time() if device == "cpu" else time.monotonic()
        for _ in range(5):
            torch.mm(first, second)
        synchronize()
        seconds = (time.process_time() if device == "cpu" else time.monotonic()) - began
        best = max(best, 5 * 2 * side**3 / seconds)
    return best


def run_process(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end, and return the cost of it and of all processes that it leaves behind.

    The wall time ends with the command. On Linux, processes that outlive it are waited for and counted as well. Raises
    `SystemExit` with the end of its output if it fails.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    output = folder / "output.txt"
    began = time.monotonic()
    with output.open("w") as stream:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    cpu, peak, wall = 0.0, 0.0, 0.0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss / 1024)
        if pid == process.pid:
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = output.read_text(errors="replace").splitlines()
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n" + "\n".join(lines[-20:]))
    return Cost(cpu, wall, peak)
