"""Disturb every stage many times, and check that no wrong result follows.

    python tests/faults [--kills N] [--stages STAGE ...] [--seed S] [--json REPORT]

First a small study is built undisturbed (docs/faults.md describes it). Then its jobs are killed, or run with full
disks and damaged files, and the results are compared with undisturbed ones, bit by bit. The exit status is 1 if a
result was wrong or lost, if an error was unclear, or if there were fewer disturbances than requested.
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
TRAININGS = ("autoencoder", "pipeline", "retrained", "classifier", "unlearning", "relearning", "inversion", "prefixes")
MIN_COUNT = 50
"""Minimum number of kills inside a write, and of other faults, in a complete session."""
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def main(arguments: list[str]) -> int:
    options = _parse_arguments(arguments)
    if "disks" in (options.kinds or KINDS) and not os.environ.get(INSIDE):
        if os.geteuid() != 0:
            print(
                "Error: full disks need mounts, and mounts need root; without full disks: --kinds "
                + " ".join(KINDS[:2]),
                file=sys.stderr,
            )
            return 1
        command = ["unshare", "--mount", sys.executable, str(HERE), *arguments]
        return subprocess.run(command, check=False, env={**os.environ, INSIDE: "1"}).returncode
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=options.scratch))
    try:
        return _disturb(options, folder, began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=320, help="number of kills at random moments, over all stages")
    parser.add_argument(
        "--write-kills", type=int, default=5, help="maximum number of kills inside writes of each stage"
    )
    parser.add_argument("--full-disks", type=int, default=4, help="number of sizes of full disks for each stage")
    parser.add_argument("--damages", type=int, default=4, help="maximum number of damaged input files of each stage")
    parser.add_argument(
        "--invocations",
        type=int,
        default=2,
        help="number of killed invocations; the other tests of invocations scale with it",
    )
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="kinds of disturbances (default: all)")
    parser.add_argument(
        "--stages", nargs="*", choices=stages(), metavar="STAGE", help="stages to disturb (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for all outcomes")
    parser.add_argument("--reference", type=Path, nargs="*", help="checkouts in which the studies are already built")
    parser.add_argument("--paper", action="store_true", help="disturb the stages of the paper's world as well")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args(arguments)


def stages() -> list[str]:
    """All stages that the rules name, with the gathering of samples as a separate stage."""
    rules = "".join(path.read_text() for path in sorted((HERE.parent.parent / "rules").glob("*.smk")))
    products = {"tables", "charts", "comparisons", "figures", "probes", "sequences", "claims", "gates", "reports"}
    return sorted({*re.findall(r'"runs/(\w+)/', rules), *products, "gathering"})


def _disturb(options: argparse.Namespace, folder: Path, began: float) -> int:
    from studies import build  # imported before corelib: jobs must run the code of the reference's checkout

    references = options.reference or build(folder, options.paper)
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
            if job.label not in seen and (not options.stages or job.stage in options.stages):
                seen.add(job.label)
                chosen.append((bench, job))
    with multiprocessing.get_context("fork").Pool(options.workers, initializer=_use_one_thread) as pool:
        undisturbed_attempts = pool.map(
            _call, [functools.partial(bench.run_undisturbed, job) for bench, job in chosen], chunksize=1
        )
    for (bench, job), undisturbed in zip(chosen, undisturbed_attempts, strict=True):
        bench.undisturbed[job.manifest] = undisturbed
        print(f"  {job.label:24} {undisturbed.seconds:6.2f} s, {len(undisturbed.events):4} events", flush=True)
    outcomes: list[Outcome] = []
    with multiprocessing.get_context("fork").Pool(options.workers, initializer=_use_one_thread) as pool:
        for outcome in pool.imap_unordered(_call, _disturbances(options, chosen), chunksize=1):
            outcomes.append(outcome)
            if len(outcomes) % 100 == 0:
                print(f"{len(outcomes)} disturbances after {time.monotonic() - began:.0f} s", flush=True)
            if outcome.result not in ("same bits", "one clear error"):
                print(f"{outcome.result}: {outcome.label}, {outcome.kind}: {outcome.detail}", flush=True)
    if options.json:
        options.json.write_text(json.dumps([vars(outcome) for outcome in outcomes], indent=1) + "\n")
    return _report(options, [job.label for _, job in chosen], outcomes, time.monotonic() - began)


def _disturbances(options: argparse.Namespace, chosen: list) -> Iterator[Callable]:  # type: ignore[type-arg]
    from damage import DAMAGES, STATES, damage_a_file, damage_a_state, files_to_damage, make_loss_non_finite
    from disks import fill_the_disk, write_protect
    from kills import events_to_kill_at, kill_at_random, kill_in_a_write

    kinds = options.kinds or KINDS
    if "invocations" in kinds:
        yield from _invocations(options, chosen[0][0])
    each = -(-options.kills // len(chosen))
    for bench, job in chosen:
        if "kills" in kinds:
            for number in range(each):
                yield functools.partial(kill_at_random, bench, job, number, each, options.seed)
        if "writes" in kinds:
            for event in events_to_kill_at(bench.undisturbed[job.manifest].events, options.write_kills):
                yield functools.partial(kill_in_a_write, bench, job, event, options.seed)
        if "disks" in kinds:
            for pages in _numbers_of_pages(bench.undisturbed[job.manifest].pages, options.full_disks):
                yield functools.partial(fill_the_disk, bench, job, pages)
            yield functools.partial(write_protect, bench, job)
        if "damage" in kinds:
            for number, path in enumerate(files_to_damage(bench, job)[: options.damages]):
                others = list(DAMAGES)[1:]
                for kind in ("flipped bit", others[number % len(others)]):
                    yield functools.partial(damage_a_file, bench, job, path, kind, options.seed)
            if job.stage in TRAININGS and "diverging" not in job.label:  # it ends before it saves a state
                for kind in [*DAMAGES, *STATES]:
                    yield functools.partial(damage_a_state, bench, job, kind, options.seed)
            if job.stage in TRAININGS[:4]:
                yield functools.partial(make_loss_non_finite, bench, job)


def _invocations(options: argparse.Namespace, bench) -> Iterator[Callable]:  # type: ignore[no-untyped-def, type-arg]
    import invocations

    for number in range(options.invocations):
        yield functools.partial(invocations.kill_invocation, bench, number, options.seed)
    for number in range(4 * options.invocations):
        yield functools.partial(invocations.start_two_invocations, bench, number, options.seed)
    for pages in (0, 1, 4, 40, 150, 400)[: 3 * options.invocations]:
        yield functools.partial(invocations.fill_disk_of_invocation, bench, pages)
    for what in invocations.DAMAGED:
        yield functools.partial(invocations.damage_result, bench, what, options.seed)
    for kind in invocations.CLOCKS if invocations.faketime() else ():
        yield functools.partial(invocations.set_the_clock, bench, kind)
    if not invocations.faketime():
        print("The tests with other clocks are skipped: they need libfaketime (Debian: faketime).", flush=True)


def _numbers_of_pages(needed: int, max_count: int) -> list[int]:
    """Numbers of free pages on a full disk: none, a few, and then fractions of the pages that a job writes."""
    few = [0, 1, 2, 3]
    shares = max(1, max_count - len(few))
    return sorted({*few[:max_count], *(needed * (number + 1) // (shares + 1) for number in range(shares))})


def _call(compute: Callable):  # type: ignore[type-arg, no-untyped-def]
    return compute()


def _use_one_thread() -> None:
    """Use a single thread, because a forked process loses the others."""
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


def _report(options: argparse.Namespace, labels: list[str], outcomes: list, seconds: float) -> int:  # type: ignore[type-arg]
    def count(chosen: list) -> tuple[int, ...]:  # type: ignore[type-arg]
        kills = sum(one.kills for one in chosen if one.kind == "at random")
        writes = sum(one.kills for one in chosen if one.kind == "in a write")
        faults = sum(1 for one in chosen if one.kind not in ("at random", "in a write"))
        results = Counter(one.result for one in chosen)
        bad = sum(results[kind] for kind in ("WRONG", "LOST", "UNCLEAR"))
        return (
            kills,
            writes,
            sum(one.inside for one in chosen),
            faults,
            results["same bits"],
            results["one clear error"],
            bad,
        )

    head = (
        "stage",
        "random kills",
        "kills at writes",
        "of both, inside a write",
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
    kinds = Counter((one.kind, one.result) for one in outcomes)
    print("\n| kind | outcome | times |\n| --- | --- | ---: |")
    for (kind, result), times in sorted(kinds.items()):
        print(f"| {kind} | {result} | {times} |")
    total = rows[-1]
    print(f"\n{total[1] + total[2]} kills and {total[4]} faults in {seconds:.0f} s, seed {options.seed}.")
    enough = total[1] >= options.kills * 0.95 or "kills" not in (options.kinds or KINDS)
    if not options.kinds and not options.stages:
        enough = enough and min(total[3], total[4]) >= MIN_COUNT
    if not enough:
        print("These are fewer disturbances than requested.")
    return 0 if total[-1] == 0 and enough else 1


def _in_order(labels: list[str], outcomes: list) -> list[str]:  # type: ignore[type-arg]
    return list(dict.fromkeys([*labels, *(one.label for one in outcomes)]))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:
        traceback.print_exc()
        sys.exit(1)
