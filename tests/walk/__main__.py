"""Make random changes to a folder of results, as users do, and request the products after each change.

    python tests/walk [--moves N] [--seed S] [--json REPORT]

The walk stands in the folder in which everything was built, with all that Snakemake remembers. After each move the
products are asked for, and have to be, byte for byte, those that an undisturbed build of the present configuration
makes; `verify` has to name exactly what is damaged; nothing that was complete may be gone, and nothing that is no run.
Ends with 1 if a product was stale, something was lost, an answer was unclear, or `verify` did not agree.
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
    asked = _asked(arguments)
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="walk-", dir=asked.scratch))
    began = time.monotonic()
    try:
        walk = Walk(folder / "workplace", Reference(folder / "reference"), asked.seed)
        steps = []
        for _ in range(asked.moves):
            steps.append(walk.step())
            print(steps[-1], flush=True)
            if asked.json:
                asked.json.write_text(json.dumps([asdict(step) for step in steps], indent=1))
            if asked.stop and steps[-1].faults:
                break
        return _report(steps, time.monotonic() - began)
    finally:
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/walk", description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where every step is written")
    parser.add_argument("--keep", type=Path, help="a folder for the walk, kept afterwards and gone on with")
    parser.add_argument("--stop", action="store_true", help="at the first fault")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args(arguments)


def _report(steps: list[Step], seconds: float) -> int:
    counts, faults = Counter(step.move for step in steps), Counter[str]()
    for step in steps:
        faults.update(fault.split(":")[0] for fault in step.faults)
    for move in MOVES:
        print(f"{counts[move.__name__]:5d}  {move.__name__}")
    again = sum(step.asked > 1 for step in steps)
    print(f"{len(steps)} moves in {seconds:.0f} s; {again} times the answer was one sentence, and asking again enough")
    print("faults: " + (", ".join(f"{count} {kind}" for kind, count in faults.items()) or "none"))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
