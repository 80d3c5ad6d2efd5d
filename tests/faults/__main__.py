"""Disturb every stage many times, and check that no wrong result comes of it.

    python tests/faults [--kills N] [--stages STAGE ...] [--seed S] [--json REPORT]

First a small study is built undisturbed (docs/faults.md describes it). Then its jobs are killed, or run with full
disks and damaged files, and the results are compared with undisturbed ones, bit by bit. Ends with 1 if any was wrong,
lost or unclear, or if there were fewer disturbances than requested.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

INSIDE = "CORELIB_FAULTS_INSIDE"
KINDS = ["kills", "writes", "disks", "damage", "invocations"]
TRAININGS = ("autoencoder", "pipeline", "classifier", "unlearning")
LEAST = 50
"""Minimum numbers of kills inside a write, and of other faults, in a complete session."""
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def main(arguments: list[str]) -> int:
    asked = _asked(arguments)
    if "disks" in (asked.kinds or KINDS) and not os.environ.get(INSIDE):
        if os.geteuid() != 0:
            print("Error: full disks need root, for mounts; without: --kinds " + " ".join(KINDS[:2]), file=sys.stderr)
            return 1
        command = ["unshare", "--mount", sys.executable, str(HERE), *arguments]
        return subprocess.run(command, check=False, env={**os.environ, INSIDE: "1"}).returncode
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=asked.scratch))
    try:
        return _disturb(asked, folder, began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=320, help="at random moments, over all stages")
    parser.add_argument("--write-kills", type=int, default=5, help="inside writes, at most so many of each stage")
    parser.add_argument("--full-disks", type=int, default=4, help="of so many sizes for each stage")
    parser.add_argument("--damages", type=int, default=4, help="at most so many files of what each stage reads")
    parser.add_argument("--invocations", type=int, default=2, help="killed with all their jobs, until they are done")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="of disturbances, all by default")
    parser.add_argument("--stages", nargs="*", choices=stages(), metavar="STAGE", help="all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where every outcome is written")
    parser.add_argument("--reference", type=Path, nargs="*", help="checkouts in which studies have been built already")
    parser.add_argument("--paper", action="store_true", help="the stages of the paper's world as well")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args(arguments)


def stages() -> list[str]:
    """All stages as the rules name them, with the gathering of samples as a separate one."""
    rules = "".join(path.read_text() for path in sorted((HERE.parent.parent / "rules").glob("*.smk")))
    return sorted({*re.findall(r'"runs/(\w+)/', rules), "tables", "figures", "gates", "gathering"})


def _disturb(asked: argparse.Namespace, folder: Path, began: float) -> int:
    from studies import build  # imported before corelib: jobs must run the code of the reference's checkout

    references = asked.reference or build(folder, asked.paper)
    print(f"built undisturbed after {time.monotonic() - began:.0f} s", flush=True)
    _import_all(references[0])
    from attempts import Reference
    from outcomes import Bench, Outcome

    benches = []
    for path in references:
        scratch = folder / f"scratch-{len(benches)}"
        scratch.mkdir(parents=True)
        benches.append(Bench(Reference(path.resolve()), scratch))
    chosen = []
    seen: set[str] = set()
    for bench in benches:
        for job in bench.reference.representatives():
            if job.label not in seen and (not asked.stages or job.stage in asked.stages):
                seen.add(job.label)
                chosen.append((bench, job))
    with multiprocessing.get_context("fork").Pool(asked.workers, initializer=_quiet) as pool:
        alone = pool.map(_call, [functools.partial(bench.leave_alone, job) for bench, job in chosen], chunksize=1)
    for (bench, job), undisturbed in zip(chosen, alone, strict=True):
        bench.undisturbed[job.manifest] = undisturbed
        print(f"  {job.label:24} {undisturbed.seconds:6.2f} s, {len(undisturbed.events):4} events", flush=True)
    outcomes: list[Outcome] = []
    with multiprocessing.get_context("fork").Pool(asked.workers, initializer=_quiet) as pool:
        for outcome in pool.imap_unordered(_call, _disturbances(asked, chosen), chunksize=1):
            outcomes.append(outcome)
            if len(outcomes) % 100 == 0:
                print(f"{len(outcomes)} disturbances after {time.monotonic() - began:.0f} s", flush=True)
            if outcome.said not in ("same bits", "one clear error"):
                print(f"{outcome.said}: {outcome.label}, {outcome.kind}: {outcome.detail}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps([vars(outcome) for outcome in outcomes], indent=1) + "\n")
    return _report(asked, [job.label for _, job in chosen], outcomes, time.monotonic() - began)


def _disturbances(asked: argparse.Namespace, chosen: list) -> Iterator[Callable]:  # type: ignore[type-arg]
    from damage import DAMAGES, STATES, damage_a_file, damage_a_state, files_to_damage, lose_the_numbers
    from disks import fill_the_disk, write_protect
    from kills import events_to_kill_at, kill_at_random, kill_in_a_write

    kinds = asked.kinds or KINDS
    if "invocations" in kinds:
        yield from _invocations(asked, chosen[0][0])
    each = -(-asked.kills // len(chosen))
    for bench, job in chosen:
        if "kills" in kinds:
            for number in range(each):
                yield functools.partial(kill_at_random, bench, job, number, each, asked.seed)
        if "writes" in kinds:
            for event in events_to_kill_at(bench.undisturbed[job.manifest].events, asked.write_kills):
                yield functools.partial(kill_in_a_write, bench, job, event, asked.seed)
        if "disks" in kinds:
            for pages in _numbers_of_pages(bench.undisturbed[job.manifest].pages, asked.full_disks):
                yield functools.partial(fill_the_disk, bench, job, pages)
            yield functools.partial(write_protect, bench, job)
        if "damage" in kinds:
            for number, path in enumerate(files_to_damage(bench, job)[: asked.damages]):
                others = list(DAMAGES)[1:]
                for kind in ("flipped bit", others[number % len(others)]):
                    yield functools.partial(damage_a_file, bench, job, path, kind, asked.seed)
            if job.stage in TRAININGS and "diverging" not in job.label:  # that ends before it saves a state
                for kind in [*DAMAGES, *STATES]:
                    yield functools.partial(damage_a_state, bench, job, kind, asked.seed)
            if job.stage in TRAININGS[:3]:
                yield functools.partial(lose_the_numbers, bench, job)


def _invocations(asked: argparse.Namespace, bench) -> Iterator[Callable]:  # type: ignore[no-untyped-def, type-arg]
    import invocations

    for number in range(asked.invocations):
        yield functools.partial(invocations.kill_all_of_it, bench, number, asked.seed)
    for number in range(4 * asked.invocations):
        yield functools.partial(invocations.start_two, bench, number, asked.seed)
    for pages in (0, 1, 4, 40, 150, 400)[: 3 * asked.invocations]:
        yield functools.partial(invocations.fill_its_disk, bench, pages)
    for what in invocations.DAMAGED:
        yield functools.partial(invocations.damage_under_it, bench, what, asked.seed)
    for kind in invocations.CLOCKS if invocations.faketime() else ():
        yield functools.partial(invocations.set_the_clock, bench, kind)
    if not invocations.faketime():
        print("No clock is set: that needs libfaketime (on Debian: faketime).", flush=True)


def _numbers_of_pages(needed: int, most: int) -> list[int]:
    """Numbers of free pages on a full disk: none, a few, and then fractions of the pages that a job writes."""
    few = [0, 1, 2, 3]
    shares = max(1, most - len(few))
    return sorted({*few[:most], *(needed * (number + 1) // (shares + 1) for number in range(shares))})


def _call(compute: Callable):  # type: ignore[type-arg, no-untyped-def]
    return compute()


def _quiet() -> None:
    """Turn threads off: they would be lost in forked processes."""
    import torch

    torch.set_num_threads(1)


def _import_all(checkout: Path) -> None:
    """Import all modules that any job imports, from the reference's checkout."""
    sys.path.insert(0, str(checkout.resolve()))
    from corelib.runs import job as jobs
    from corelib.runs.environment import prepare_environment

    prepare_environment(os.environ, checkout)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for script in sorted((checkout / "workflow_scripts").glob("*.py")):
        imports = [line for line in script.read_text().splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(imports), {})
    jobs.check_packages = lambda: None  # the forked processes have imported these tests as well


def _report(asked: argparse.Namespace, labels: list[str], outcomes: list, seconds: float) -> int:  # type: ignore[type-arg]
    def count(chosen: list) -> tuple[int, ...]:  # type: ignore[type-arg]
        kills = sum(one.kills for one in chosen if one.kind == "at random")
        writes = sum(one.kills for one in chosen if one.kind == "in a write")
        faults = sum(1 for one in chosen if one.kind not in ("at random", "in a write"))
        said = Counter(one.said for one in chosen)
        bad = sum(said[kind] for kind in ("WRONG", "LOST", "UNCLEAR"))
        return kills, writes, sum(one.inside for one in chosen), faults, said["same bits"], said["one clear error"], bad

    head = (
        "stage",
        "random kills",
        "kills at writes",
        "of all inside one",
        "faults",
        "same bits",
        "clear error",
        "wrong",
    )
    rows = [(label, *count([one for one in outcomes if one.label == label])) for label in _in_order(labels, outcomes)]
    rows.append(("all", *count(outcomes)))
    print("\n| " + " | ".join(head) + " |\n| --- |" + " ---: |" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    kinds = Counter((one.kind, one.said) for one in outcomes)
    print("\n| kind | outcome | times |\n| --- | --- | ---: |")
    for (kind, said), times in sorted(kinds.items()):
        print(f"| {kind} | {said} | {times} |")
    total = rows[-1]
    print(f"\n{total[1] + total[2]} kills and {total[4]} faults in {seconds:.0f} s, seed {asked.seed}.")
    enough = total[1] >= asked.kills * 0.95 or "kills" not in (asked.kinds or KINDS)
    if not asked.kinds and not asked.stages:
        enough = enough and min(total[3], total[4]) >= LEAST
    if not enough:
        print("These are fewer disturbances than were asked for.")
    return 0 if total[-1] == 0 and enough else 1


def _in_order(labels: list[str], outcomes: list) -> list[str]:  # type: ignore[type-arg]
    return list(dict.fromkeys([*labels, *(one.label for one in outcomes)]))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
