"""Make random changes to a folder of results, as users do, and request the products after each change.

    python tests/walk [--moves N] [--seed S] [--json REPORT]

The walk takes place in the folder in which everything was built, with all of Snakemake's metadata. After each move, it
requests the products. They must be identical, byte for byte, to those of an undisturbed build of the present
configuration. `verify` must name exactly the damaged runs. No complete run may have disappeared, and no file that is
not part of a run. The exit status is 1 if a product was stale, something was lost, an error message was unclear, or
`verify` was wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from moves import MOVES
from walking import Reference, Step, Walk


def main(arguments: list[str]) -> int:
    options = _parse_arguments(arguments)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="walk-", dir=options.scratch))
    began = time.monotonic()
    try:
        walk = Walk(folder / "workplace", Reference(folder / "reference"), options.seed)
        steps = []
        for _ in range(options.moves):
            steps.append(walk.step())
            print(steps[-1], flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(step) for step in steps], indent=1))
            if options.stop and steps[-1].faults:
                break
        return _report(steps, time.monotonic() - began)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/walk", description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results of all steps")
    parser.add_argument("--keep", type=Path, help="folder for the walk, which is kept; an existing one is used again")
    parser.add_argument("--stop", action="store_true", help="stop at the first fault")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args(arguments)


def _report(steps: list[Step], seconds: float) -> int:
    counts, faults = Counter(step.move for step in steps), Counter[str]()
    for step in steps:
        faults.update(fault.split(":")[0] for fault in step.faults)
    for move in MOVES:
        print(f"{counts[move.__name__]:5d}  {move.__name__}")
    repeated = sum(step.requests > 1 for step in steps)
    print(f"{len(steps)} moves in {seconds:.0f} s; after {repeated} of them, the first request ended with an error")
    print("faults: " + (", ".join(f"{count} {kind}" for kind, count in faults.items()) or "none"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
