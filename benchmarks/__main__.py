"""Compare the speed of this repository with a plain reference, in one command and one report.

    python benchmarks [--pairs N] [--report FOLDER] [--remark TEXT] [--quick | --full]

The reference (benchmarks/reference.py) computes the same as public unlearning code does. Both sides have the same
precision and number of threads, and are measured in turn. The default is the shipped miniature on one thread of a CPU:
about a quarter of an hour of an idle core. `--full` takes Stable Diffusion v1.5's networks with random weights, and
needs a GPU. `--quick` does as little as possible, to show that everything runs; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]


def main() -> None:
    """Measure, print the report, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="pairs of each comparison (default: %(default)s)")
    parser.add_argument("--report", type=Path, default=Path("benchmark"), help="folder of the report")
    parser.add_argument(
        "--remark", action="append", default=[], help="a sentence about the circumstances, for the report"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="as little as possible; the numbers mean nothing")
    size.add_argument(
        "--full", action="store_true", help="Stable Diffusion v1.5's networks with random weights, on a GPU"
    )
    options = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        report = _full(Path(folder), options) if options.full else _miniature(Path(folder), options)
    paths = report.write(options.report)
    print(report.markdown())
    print(f"written: {', '.join(map(str, paths))}")


def _miniature(folder, options):  # type: ignore[no-untyped-def]
    import torch

    from benchmarks.measurement import matmul_peak
    from benchmarks.miniature import THREADS, Miniature, distance_alone
    from benchmarks.report import Report

    torch.set_num_threads(THREADS)
    print("the original model's row, which both sides take for granted", file=sys.stderr, flush=True)
    world = Miniature(folder, options.quick)
    pairs = 1 if options.quick else options.pairs
    peak = matmul_peak("cpu", torch.float32, 64 if options.quick else 1024)
    few = max(1, pairs // 2)
    results = [_measured(world.end_to_end(), few)]  # first: the stages work on the files of this run
    results += [_measured(comparison, pairs) for comparison in world.stages()]
    results.append(_measured(distance_alone(options.quick), few))
    title = "The miniature in fp32, on one thread" + (" (quick: the numbers mean nothing)" if options.quick else "")
    return Report(title, "cpu", results, peak, world.peaks(), options.remark)


def _measured(comparison, pairs):  # type: ignore[no-untyped-def]
    from benchmarks.measurement import measure

    print(f"{comparison.name}: {pairs} pairs", file=sys.stderr, flush=True)
    return measure(comparison, pairs)


def _full(folder, options):  # type: ignore[no-untyped-def]
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--full: there is no GPU here; without it, each of its steps would take minutes.")
    from benchmarks.full_world import compare

    return compare(folder, options.pairs, options.remark)


if __name__ == "__main__":
    main()
