"""The commands of `python -m corelib`: they inspect, plan, check and clean, and build no result."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from corelib.cluster.slurm_queue import queued_jobs
from corelib.commands import why as explaining
from corelib.commands.clean import (
    Unnamed,
    check_that_names_are_certain,
    nothing_is_built_here,
    remove,
    runs_made_of,
    unnamed_runs,
)
from corelib.commands.plan import as_text
from corelib.commands.preflight import preflight
from corelib.commands.ship import ship_world
from corelib.commands.verify import verify_results
from corelib.costs.forecast import forecast_of, in_bytes
from corelib.errors import UserError
from corelib.runs.active_jobs import WATCH, running_jobs
from corelib.runs.environment import leave_out_the_users_packages
from corelib.runs.layout import REPOSITORY
from corelib.study.loading import load_study
from corelib.study.overlays import PAPER
from corelib.study.targets import plan_of, targets_of

CONFIGURATION = REPOSITORY / "config"

TARGETS = "as for Snakemake, such as results/mini/table1.csv; all tables, figures and the gate of the paper by default"

READER_GONE = 141
"""The status of a command whose reader, such as `head`, has seen enough: as of one that SIGPIPE has ended."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status. What is wrong is said in one sentence."""
    leave_out_the_users_packages(CONFIGURATION.parent)
    asked = _parser().parse_args(arguments)
    command: Callable[[Any], int] = asked.command
    try:
        status = command(asked)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to say, nobody reads
        return READER_GONE
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Error: interrupted; what was done is kept, and the same command goes on from there.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m corelib", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, does: Callable[[Any], int], help_: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
        added.set_defaults(command=does)
        return added

    study: dict[str, Any] = {
        "default": PAPER,
        "nargs": "?",
        "help": "a study's name: paper, or of a file in config/studies/ its name without .yaml, such as mini",
    }
    command("preflight", look_ahead, "whether a study could run here: assets, disk, versions, device").add_argument(
        "study", **study
    )
    plan = command("plan", plan_targets, "what targets will cost: jobs, steps, images, hours, disk; nothing is run")
    plan.add_argument("targets", nargs="*", default=["all"], help=TARGETS)
    assets = command("assets", provide_assets, "fetch the files of the paper's world, check and lock them")
    assets.add_argument("study", **study)
    assets.add_argument("--again", action="store_true", help="read every image again, though they are locked")
    command("jobs", show_jobs, "what is being computed now, where, and how far it is")
    why = command("why", explain_targets, "why targets have to be made: what differs from what is there")
    why.add_argument("targets", nargs="*", default=["all"], help=TARGETS)
    command("verify", verify, "whether all hashes, specifications and digests in runs/ and results/ belong together")
    clean = command("clean", clean_runs, "the runs that no study names and no table or figure here shows, and why")
    clean.add_argument("runs", nargs="*", metavar="RUN", help="instead, these runs and all that was made of them")
    clean.add_argument("--delete", action="store_true", help="remove them")
    export = command("export", export_run, "a run's model for diffusers, or its images for an evaluator")
    export.add_argument("what", choices=["model", "images"])
    export.add_argument("run", help="a run of the stage `unlearning` or `samples`: its name, or the beginning of it")
    export.add_argument("folder", type=Path, help="where it is put; not there yet")
    command("products", show_products, "the targets that are all tables and figures of a study").add_argument(
        "study", **study
    )
    shipping = command("ship", ship, "put the world that a study has trained here in place of the shipped one")
    shipping.add_argument("study", help="a study with world.pretrained: false, built in this working directory")
    return parser


def look_ahead(asked: Any) -> int:
    """Say of a study what was found, finding by finding."""
    faults = 0
    for finding in preflight(plan_of(asked.study, CONFIGURATION), CONFIGURATION.parent):
        print(finding, flush=True)
        faults += finding.kind == "FAULT"
    print(f"{asked.study}: {f'{faults} fault(s), expected none' if faults else 'ready'}.")
    return 1 if faults else 0


def plan_targets(asked: Any) -> int:
    """Say what targets will cost."""
    print(as_text(*forecast_of(asked.targets, CONFIGURATION)))
    return 0


def explain_targets(asked: Any) -> int:
    """Say why targets have to be made."""
    print(explaining.as_text(*forecast_of(asked.targets, CONFIGURATION)))
    return 0


def verify(_: Any) -> int:
    """Say whether what lies here is what it says it is."""
    found = verify_results()
    for said in (*found.faults, *found.affected):
        print(said)
    if found.others:
        print("Not looked at, because they belong to no run and no product:", *found.others, sep="\n  ")
    print(found)
    if found.faults:
        print("`python -m corelib clean RUN --delete` removes a run and all that was made of it, to be made again.")
    return 1 if found.faults else 0


def clean_runs(asked: Any) -> int:
    """Name, or remove, the runs that no study names, or some runs with all that was made of them."""
    with nothing_is_built_here() if asked.delete else nullcontext():
        if asked.runs:
            found, count = Unnamed(runs_made_of(asked.runs)), "these, and what was made of them"
        else:
            if asked.delete:
                check_that_names_are_certain(CONFIGURATION)
            found = unnamed_runs(CONFIGURATION)
            count = f"{len(found.runs)} runs that no study names"
        if found.left_alone:
            print("Left alone, because they are no runs:", *found.left_alone, sep="\n  ")
        if found.kept:
            print("Kept:", *found.kept, sep="\n  ")
        for reason, runs in itertools.groupby(found.runs, lambda run: run.reason):
            if reason:
                print(f"{reason}:")
            for run in runs:
                print(f"{in_bytes(run.bytes) or '0 B':>10}  {run.path}{f', {run.made}' if run.made else ''}")
                if asked.delete:
                    remove(run)
    freed = in_bytes(sum(run.bytes for run in found.runs)) or "0 B"
    print(f"{freed:>10}  {count}{', removed' if asked.delete else '; --delete removes them' if found.runs else ''}.")
    return 0


def provide_assets(asked: Any) -> int:
    """Fetch, check and lock the assets of a study."""
    from corelib.commands.assets import Provision  # here: no other command needs the Hub's client
    from corelib.worlds.unlearn_canvas.indexing import Wanted

    plan = plan_of(asked.study, CONFIGURATION)
    world, photo_style = plan.study.world, plan.study.prompts.photo_style
    wanted = Wanted(world.styles, world.objects, world.images_per_cell)
    provision = Provision(
        plan.papers_world.assets(),
        wanted,
        CONFIGURATION,
        photo_style,
        plan.papers_world.compvis_weights,
        lambda line: print(line, flush=True),
    )
    provision.make(asked.again)
    return 0


def show_jobs(_: Any) -> int:
    """Say what is being computed, and what waits in Slurm's queue."""
    queue = queued_jobs(Path.cwd())
    running = running_jobs({job.number for job in queue if not job.waits}, patience=WATCH)
    computing = {job.owner.job for job in running if job.lives}
    print(*running, *(job for job in queue if job.number not in computing), sep="\n")
    if not running and not queue:
        print("No job computes here now.")
    return 0


def export_run(asked: Any) -> int:
    """Put a run's model or its images into a folder of their own."""
    from corelib.commands.export import export_images, export_model  # here: no other command needs torch

    (export_model if asked.what == "model" else export_images)(asked.run, asked.folder)
    print(asked.folder)
    return 0


def show_products(asked: Any) -> int:
    """Name the targets of a study."""
    print(*targets_of(asked.study, load_study(asked.study, CONFIGURATION)))
    return 0


def ship(asked: Any) -> int:
    """Take a world that was trained here for the shipped one."""
    print(os.path.relpath(ship_world(asked.study, CONFIGURATION)))
    return 0
