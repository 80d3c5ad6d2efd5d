"""The moves of the walk: changes to a folder of results. Each is a function that returns a description."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from walking import BEGINNINGS, CHOICES, SIBLING, STUDY, Walk, targets_of

Move = Callable[[Walk], str]


def edit_a_leaf(walk: Walk) -> str:
    """Change a hyperparameter, or change it back."""
    at = walk.random.randrange(len(CHOICES))
    values = list(walk.configuration)
    options = [value for value in range(len(list(CHOICES.values())[at])) if value != values[at]]
    values[at] = walk.random.choice(options)
    walk.configure(tuple(values))
    return f"{list(CHOICES)[at]} -> {values[at]}"


def switch_the_study(walk: Walk) -> str:
    """Request the other study from now on."""
    walk.study = SIBLING if walk.study == STUDY else STUDY
    return walk.study


def damage_a_product(walk: Walk) -> str:
    """Edit, truncate, empty, delete or replace a file of the products, perhaps without changing its times."""
    paths = [path for path in _files(walk.folder / "results") if path.name.startswith(BEGINNINGS)]
    return _damage(walk, walk.random.choice(paths))


def damage_an_intermediate(walk: Walk) -> str:
    """Damage a file of a run in the same ways."""
    stages = sorted({path.parts[len(walk.folder.parts) + 1] for path in _runs(walk)})
    stage = walk.random.choice(stages)
    return _damage(walk, walk.random.choice(_files(walk.folder / "runs" / stage)))


def damage_an_intermediate_and_the_table(walk: Walk) -> str:
    """Damage a file of a run and delete the table, so that the table must be built from damaged inputs."""
    description = damage_an_intermediate(walk)
    table = walk.folder / f"results/{walk.study}/table1.csv"
    table.unlink(missing_ok=True)
    return f"{description}; table1.csv deleted"


def delete_runs(walk: Walk) -> str:
    """Delete the folder of a run, or of all runs of a stage."""
    run = walk.random.choice(_runs(walk))
    is_all = walk.random.random() < 0.3
    for deleted in [path for path in _runs(walk) if path.parent == run.parent] if is_all else [run]:
        if not (deleted / "manifest.json").exists():  # of a product of any study, which `verify` then names
            walk.disturbed.add(_name_of(walk, deleted))
        shutil.rmtree(deleted)
    return f"all of {run.parent.name}" if is_all else _name_of(walk, run)


def delete_runs_and_a_product(walk: Walk) -> str:
    """Delete runs, and a product that was made from them."""
    description = delete_runs(walk)
    (walk.folder / f"results/{walk.study}/table1.json").unlink(missing_ok=True)
    return f"{description}; table1.json deleted"


def copy_results_in(walk: Walk) -> str:
    """Copy the products of another configuration over the present ones, as from a backup."""
    kept = sorted((walk.reference.checkout.folder / "kept").glob(f"{walk.study}-*")) or sorted(
        (walk.reference.checkout.folder / "kept").iterdir()
    )
    source = walk.random.choice(kept)
    keep_dates = walk.random.random() < 0.5
    target = walk.folder / "results" / walk.study
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if walk.random.random() < 0.8:
            (shutil.copy2 if keep_dates else shutil.copy)(path, target)
    return f"{source.name}{', dates kept' if keep_dates else ''}"


def copy_runs_in(walk: Walk) -> str:
    """Copy runs of the same study, built elsewhere, over those of this folder."""
    source = walk.reference.checkout.folder / "runs"
    runs = sorted(path for path in source.glob("*/*") if path.is_dir())
    chosen = walk.random.sample(runs, min(len(runs), 4))
    for run in chosen:
        target = walk.folder / "runs" / run.relative_to(source)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run, target, symlinks=True)
        walk.disturbed.add(run.relative_to(source).as_posix())
    return ", ".join(run.relative_to(source).as_posix() for run in chosen)


def mix_up_runs(walk: Walk) -> str:
    """Copy a file of one run over that of another run of the same stage."""
    stage = walk.random.choice([path.parent for path in _runs(walk)])
    runs = [path for path in _runs(walk) if path.parent == stage]
    one, other = walk.random.choice(runs), walk.random.choice(runs)
    names = [path.relative_to(one) for path in _files(one) if (other / path.relative_to(one)).is_file()]
    if one == other or not names:
        return "nothing to mix up"
    name = walk.random.choice(names)
    shutil.copy(one / name, other / name)
    walk.disturbed.add(_name_of(walk, other))
    return f"{name} of {_name_of(walk, one)} over that of {_name_of(walk, other)}"


def clean(walk: Walk) -> str:
    """Remove runs that no study names, or some runs with everything that was made from them."""
    if walk.random.random() < 0.4:
        done = walk.checkout.python("-m", "corelib", "clean", "--delete", timeout=120)
        assert done.returncode == 0, done.stdout
        return "runs that no study names"
    run = _name_of(walk, walk.random.choice(_runs(walk)))
    done = walk.checkout.python("-m", "corelib", "clean", run, "--delete", timeout=120)
    assert done.returncode == 0, done.stdout
    return run


def recover(walk: Walk) -> str:
    """Follow the advice of `verify`: remove damaged runs with everything that was made from them."""
    damaged = walk.damaged()
    for run in damaged:
        walk.checkout.python("-m", "corelib", "clean", run, "--delete", timeout=120)
    return ", ".join(damaged) or "nothing is damaged"


def touch(walk: Walk) -> str:
    """Set the modification times of some or all files, to the past or the future."""
    files = [*_files(walk.folder / "results"), *_files(walk.folder / "runs")]
    chosen = files if walk.random.random() < 0.4 else walk.random.sample(files, min(len(files), 10))
    for path in chosen:
        moment = time.time() + walk.random.choice([-1e7, -1000, -1, 0, 1, 1000, 1e6])
        os.utime(path, (moment, moment))
    return f"{len(chosen)} files"


def delete_metadata(walk: Walk) -> str:
    """Remove Snakemake's metadata, all of it or that of past jobs."""
    name = walk.random.choice([".snakemake", ".snakemake/metadata", ".snakemake/corelib", "logs"])
    shutil.rmtree(walk.folder / name, ignore_errors=True)
    return name


def request_a_part(walk: Walk) -> str:
    """Request one product, a run, the first stages, or nothing."""
    table, _, figure, *_ = targets_of(walk.study)
    manifests = sorted((walk.folder / "runs").glob("*/*/manifest.json"))
    run = walk.random.choice(manifests).relative_to(walk.folder).as_posix()
    arguments = walk.random.choice(
        [[figure], [table.replace(".csv", ".md")], [run], [table, "--until", "classify_images"], [table, "-n"]]
    )
    walk.checkout.snakemake("--cores", "2", *arguments)
    return " ".join(arguments)


def dry_run_another_configuration(walk: Walk) -> str:
    """Edit a leaf, make a dry run, and change the leaf back."""
    before = walk.configuration
    description = edit_a_leaf(walk)
    walk.checkout.snakemake("-n", *targets_of(walk.study))
    walk.configure(before)
    return description


def kill(walk: Walk) -> str:
    """Kill Snakemake, alone or with all its jobs, at a random moment while it builds another configuration.

    In half of the cases, the configuration is changed back.
    """
    before = walk.configuration
    description = edit_a_leaf(walk)
    if walk.random.random() < 0.5:
        (walk.folder / f"results/{walk.study}/table1.csv").unlink(missing_ok=True)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *targets_of(walk.study)]
    process = subprocess.Popen(
        command, cwd=walk.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    alone = walk.random.random() < 0.6
    if walk.random.random() < 0.5:
        seconds = walk.random.uniform(0, 15)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        moment = f"after {seconds:.1f} s"
    else:
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < 120 and not _is_tabulating(walk.folder):
            time.sleep(0.02)
        moment = "while it makes a table"
    if alone:
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if walk.random.random() < 0.5:
        walk.configure(before)
        description += " and back"
    return f"{description}, {'Snakemake alone' if alone else 'with its jobs'} {moment}"


def _is_tabulating(folder: Path) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve() == folder.resolve() and b"tabulate.py" in (process / "cmdline").read_bytes():
                return True
    return False


def _damage(walk: Walk, path: Path) -> str:
    """Damage a file at random."""
    walk.disturbed.add("/".join(path.relative_to(walk.folder).parts[1:3]))
    dates = path.stat()
    how = walk.random.choice(["flipped", "cut", "emptied", "deleted", "appended to", "a folder instead"])
    content = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "a folder instead":
        path.unlink()
        path.mkdir()
    elif how == "flipped" and content:
        at = walk.random.randrange(len(content))
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << walk.random.randrange(8))]) + content[at + 1 :])
    elif how == "appended to":
        path.write_bytes(content + b" ")
    else:
        path.write_bytes(b"" if how == "emptied" else content[: len(content) // 2])
    if path.is_file() and walk.random.random() < 0.5:
        os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        how += ", dates kept"
    return f"{path.relative_to(walk.folder)} {how}"


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name not in ("notes.txt", "weights.bin")
    )


def _runs(walk: Walk) -> list[Path]:
    """The folders of runs."""
    return sorted(path.parent for path in (walk.folder / "runs").glob("*/*/specification.json"))


def _name_of(walk: Walk, run: Path) -> str:
    return run.relative_to(walk.folder / "runs").as_posix()


WEIGHTED: dict[Move, int] = {
    edit_a_leaf: 10,
    switch_the_study: 4,
    damage_a_product: 10,
    damage_an_intermediate: 8,
    damage_an_intermediate_and_the_table: 10,
    delete_runs: 6,
    delete_runs_and_a_product: 6,
    copy_results_in: 6,
    copy_runs_in: 4,
    mix_up_runs: 4,
    clean: 5,
    recover: 4,
    touch: 5,
    delete_metadata: 4,
    request_a_part: 6,
    dry_run_another_configuration: 3,
    kill: 10,
}
MOVES, WEIGHTS = list(WEIGHTED), list(WEIGHTED.values())
