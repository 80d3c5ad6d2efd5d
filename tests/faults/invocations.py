"""Whole invocations of Snakemake: killed with all their jobs, two at once, on full disks, and with other clocks."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attempts import Job, Place
from damage import flip_a_bit
from disks import FULL, PAGE
from outcomes import CLEAR, LOST, SAME, UNCLEAR, WRONG, Bench, Outcome
from studies import FIGURE, TABLE
from support.checkout import WORKFLOW, Checkout

LABEL = "Snakemake"
BUSY = "Snakemake already runs here"
MAX_SECONDS = 600.0
FAKETIME = "libfaketime.so.1"
SHORT_STAGES = ("predictions", "fid", "cells")
"""Short stages, which each disturbed invocation builds again."""


@contextmanager
def clone(bench: Bench, without: tuple[str, ...], size: int = 0) -> Iterator[Checkout]:
    """A copy of the reference without some stages and without products, on its own disk if a size is given."""
    folder = Path(tempfile.mkdtemp(dir=bench.scratch))
    try:
        (folder / "disk").mkdir()
        if size:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "small", str(folder / "disk")]
            subprocess.run(mount, check=True)
        made = Checkout(folder / "disk/clone")
        made.folder.mkdir()
        for name in WORKFLOW:
            source = bench.reference.folder / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, made.folder / name)
        for name in _names(bench):
            if name.startswith("runs/") and name.split("/")[1] not in without:
                (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bench.reference.folder / name, made.folder / name)
        yield made
    finally:
        if size:
            subprocess.run(["umount", "--lazy", str(folder / "disk")], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def start(checkout: Checkout, *targets: str, **environment: str) -> subprocess.Popen[str]:
    """Start Snakemake in its own process group."""
    named = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1", *targets],
        cwd=checkout.folder,
        env={**named, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_invocation(bench: Bench, number: int, seed: int) -> Outcome:
    """Kill Snakemake and its jobs at random moments, many times, until everything is built."""
    draws = random.Random(f"invocation {seed} {number}")
    kills = 0
    with clone(bench, without=(*SHORT_STAGES, "slices", "latents", "unlearning", "samples")) as checkout:
        while True:
            running = start(checkout, TABLE, FIGURE)
            try:
                output, _ = running.communicate(timeout=draws.uniform(4, 25) if kills < 12 else MAX_SECONDS)
                break
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                kills += 1
        if running.returncode != 0:
            return Outcome(LABEL, "killed with its jobs", UNCLEAR, kills, 0, output[-1500:])
        result, detail = _compare(bench, checkout)
        return Outcome(LABEL, "killed with its jobs", result, kills, 0, detail)


def start_two_invocations(bench: Bench, number: int, seed: int) -> Outcome:
    """Start Snakemake twice within milliseconds, for one table, or for a table and a figure."""
    draws = random.Random(f"two {seed} {number}")
    kind = "two at once, same table" if number % 2 else "two at once, different products"
    with clone(bench, without=("cells",)) as checkout:
        running = [start(checkout, TABLE)]
        time.sleep(draws.choice([0.0, draws.random() * 0.02, draws.random() * 0.5, draws.random() * 4]))
        running.append(start(checkout, TABLE if number % 2 else FIGURE))
        logs = [process.communicate(timeout=MAX_SECONDS)[0] for process in running]
        for process, log in zip(running, logs, strict=True):
            if process.returncode != 0 and (log.count(BUSY) != 1 or "Traceback" in log):
                return Outcome(LABEL, kind, UNCLEAR, detail=log[-1500:])
        paths = [path for log in logs for path in re.findall(r"^    output: (.*)$", log, re.MULTILINE)]
        if twice := {path for path in paths if paths.count(path) > 1}:
            return Outcome(LABEL, kind, WRONG, detail=f"built twice: {twice}")
        if all(process.returncode for process in running):
            return Outcome(LABEL, kind, UNCLEAR, detail="both were refused")
        again = start(checkout, TABLE, FIGURE)
        log = again.communicate(timeout=MAX_SECONDS)[0]
        if again.returncode != 0:
            return Outcome(LABEL, kind, UNCLEAR, detail=log[-1500:])
        result, detail = _compare(bench, checkout)
        refused = any(process.returncode for process in running)
        return Outcome(LABEL, kind, CLEAR if result == SAME and refused else result, detail=detail)


def fill_disk_of_invocation(bench: Bench, pages: int) -> Outcome:
    """Run an invocation with a number of free pages on the disk; then free space, and run it again."""
    with clone(bench, without=("predictions", "cells"), size=400 << 20) as checkout:
        ballast = checkout.folder.parent / "ballast"
        free = os.statvfs(checkout.folder).f_bavail - pages
        with ballast.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, free * PAGE)
        first = start(checkout, TABLE, FIGURE)
        output = first.communicate(timeout=MAX_SECONDS)[0]
        ballast.unlink()
        if first.returncode != 0 and not re.search(rf"{FULL}|free", output):
            return Outcome(LABEL, "disk full", UNCLEAR, detail=f"{pages} pages: {output[-1500:]}")
        ours = re.search(r'Traceback(?:(?!Traceback)[\s\S])*File "[^"]*/corelib/', output)
        if ours:
            return Outcome(LABEL, "disk full", UNCLEAR, detail=f"{pages} pages: {output[-2500:]}")
        again = start(checkout, TABLE, FIGURE)
        log = again.communicate(timeout=MAX_SECONDS)[0]
        if again.returncode != 0:
            return Outcome(LABEL, "disk full", UNCLEAR, detail=f"{pages} pages, second request: {log[-1500:]}")
        result, detail = _compare(bench, checkout)
        return Outcome(LABEL, "disk full", CLEAR if result == SAME and first.returncode else result, detail=detail)


CLOCKS = {"set back an hour": "-3600s", "set forward a day": "+86400s", "set back while it runs": "-5400s"}


def set_the_clock(bench: Bench, kind: str) -> Outcome:
    """Build with another clock, or with one that changes meanwhile; then request the target with the true clock."""
    with clone(bench, without=("predictions", "cells")) as checkout:
        clock = checkout.folder / "clock"
        clock.write_text("+0" if "while" in kind else CLOCKS[kind])
        running = start(
            checkout,
            TABLE,
            LD_PRELOAD=str(faketime()),
            FAKETIME_TIMESTAMP_FILE=str(clock),
            FAKETIME_NO_CACHE="1",
            FAKETIME_DONT_FAKE_MONOTONIC="1",
        )
        if "while" in kind:
            until = time.monotonic() + MAX_SECONDS
            while running.poll() is None and time.monotonic() < until:
                if (checkout.folder / "runs/predictions").exists():
                    clock.write_text(CLOCKS[kind])
                    break
                time.sleep(0.05)
        output = running.communicate(timeout=MAX_SECONDS)[0]
        if (
            running.returncode != 0 and "while" in kind and "clock skew" in output
        ):  # Snakemake's own message; the target is requested again
            clock.write_text(CLOCKS[kind])
            output = start(checkout, TABLE).communicate(timeout=MAX_SECONDS)[0]
        elif running.returncode != 0:
            return Outcome(LABEL, f"clock {kind}", UNCLEAR, detail=output[-1500:])
        for record in checkout.folder.glob("runs/predictions/*/*.provenance.json"):
            if not 0 <= json.loads(record.read_text())["wall_seconds"] < MAX_SECONDS:
                return Outcome(LABEL, f"clock {kind}", WRONG, detail=f"{record}: its wall time is wrong")
        if checkout.planned(TABLE) != {}:
            return Outcome(LABEL, f"clock {kind}", LOST, detail="with the true clock, the table would be rebuilt")
        done = start(checkout, TABLE, FIGURE)
        output = done.communicate(timeout=MAX_SECONDS)[0]
        if done.returncode != 0:
            return Outcome(LABEL, f"clock {kind}", UNCLEAR, detail=output[-1500:])
        result, detail = _compare(bench, checkout)
        return Outcome(LABEL, f"clock {kind}", result, detail=detail)


def faketime() -> Path | None:
    """The library that sets the clock of a process, if it is installed (Debian: faketime)."""
    found = [path for top in ("/usr/lib", "/usr/local/lib", "/lib64") for path in Path(top).rglob(FAKETIME)]
    return found[0] if found else None


DAMAGED = {
    "a fact of a distance": "runs/fid/core-*/manifest.json",
    "a sampled image": "runs/samples/original-*/images/*seed188.jpg",
    "predictions": "runs/predictions/core-*/predictions.parquet",
    "a specification": "runs/cells/core-*/specification.json",
}


def damage_result(bench: Bench, what: str, seed: int) -> Outcome:
    """Damage a file, request the table, follow the advice of the error, and request it again."""
    kind = f"flipped bit in {what}"
    with clone(bench, without=("predictions", "cells") if "image" in what else ("cells",)) as checkout:
        name = sorted(bench.reference.folder.glob(DAMAGED[what]))[0].relative_to(bench.reference.folder)
        path = checkout.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bench.reference.folder / name, path)
        flip_a_bit(path, random.Random(f"{seed} {what}"))
        result = SAME
        for _ in range(3):
            invocation = start(checkout, TABLE, FIGURE)
            output = invocation.communicate(timeout=MAX_SECONDS)[0]
            if invocation.returncode == 0:
                break
            result = CLEAR
            sentences = re.findall(r"Error: (\S+/.*)$", output, re.MULTILINE)
            if not sentences or "Traceback" in output:
                return Outcome(LABEL, kind, UNCLEAR, detail=output[-1500:])
            for sentence in sentences:
                for named in re.findall(r"delete (\S+?)[,;.]?(?= |$)", sentence):
                    target = checkout.folder / (named if "/" in named else sentence.partition(":")[0])
                    shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        else:
            return Outcome(LABEL, kind, UNCLEAR, detail=output[-1500:])
        same, detail = _compare(bench, checkout)
        return Outcome(LABEL, kind, result if same == SAME else same, detail=detail)


def _compare(bench: Bench, checkout: Checkout) -> tuple[str, str]:
    """Check that an invocation built the files of the reference, with the same bits, and that nothing is left to do."""
    place = object.__new__(Place)
    place.folder = checkout.folder
    found = place.listing()
    place.folder = bench.reference.folder
    names = _names(bench)
    expected = {name: sha256 for name, sha256 in place.listing().items() if name in names}
    for name, sha256 in expected.items():  # runs that are no longer needed are not rebuilt
        if found.get(name, sha256) != sha256 or (name not in found and name.startswith("results")):
            return WRONG, f"{name}: {'other bits' if name in found else 'missing'}"
    if left := sorted(found.keys() - expected.keys()):
        return LOST, f"left behind: {left[:4]}"
    verified = checkout.python("-m", "corelib", "verify", timeout=300)
    if verified.returncode != 0 or " 0 faults" not in verified.stdout:
        return WRONG, verified.stdout[-600:]
    if planned := checkout.planned(TABLE, FIGURE):
        return LOST, f"the next request would run {planned}"
    return SAME, ""


def _names(bench: Bench) -> set[str]:
    """The names of the files behind the table and the figure; the reference contains other products as well."""
    names, reference = set[str](), bench.reference
    left = [job for job in reference.jobs.values() if job.stage in ("tables", "figures")]
    behind = dict[Path, Job]()
    while left:
        job = left.pop()
        if job.manifest not in behind:
            behind[job.manifest] = job
            left += [*reference.built_on(job), *reference.shards_of(job)]
    for job in behind.values():
        run = reference.folder / job.specification.parent
        files = [path for path in run.rglob("*") if path.is_file()] + [
            reference.folder / path for path in (*job.outputs, job.manifest.with_suffix(".provenance.json"))
        ]
        names |= {str(path.relative_to(reference.folder)) for path in files}
    return names
