"""`python -m corelib COMMAND`: what looks after the product but builds no result."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from corelib.errors import UserError
from corelib.forecast import as_text, forecast_of
from corelib.running import running_jobs
from corelib.shipping import ship_world
from corelib.studies import PAPER, load_study
from corelib.workflow import plan_of, targets_of

CONFIGURATION = Path(__file__).resolve().parent.parent / "config"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status. What is wrong is said in one sentence."""
    parser = argparse.ArgumentParser(prog="python -m corelib", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ship = commands.add_parser("ship", help="put the world that a study has trained here in place of the shipped one")
    ship.add_argument("study", help="a study with world.pretrained: false, built in this working directory")
    products = commands.add_parser("products", help="the targets that are all tables and figures of a study")
    products.add_argument("study", help="`paper`, or a file's name in config/studies/")
    assets = commands.add_parser("assets", help="fetch the files of the paper's world, check and lock them")
    assets.add_argument("study", nargs="?", default=PAPER, help="whose `world.assets` they are; the paper's by default")
    assets.add_argument("--again", action="store_true", help="read every image again, though they are locked")
    plan = commands.add_parser("plan", help="what targets will cost: jobs, steps, images, hours, disk; nothing is run")
    plan.add_argument("targets", nargs="*", default=["all"], help="as for Snakemake; all of the paper's by default")
    export = commands.add_parser(
        "export", help="a run's model as a diffusers folder, or its images as evaluators expect"
    )
    export.add_argument("what", choices=["model", "images"])
    export.add_argument("run", help="a run of the stage `unlearning` or `samples`: its name, or the beginning of it")
    export.add_argument("folder", type=Path, help="where it is put; not there yet")
    commands.add_parser("jobs", help="what is being computed now, where, and how far it is")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "ship":
            print(os.path.relpath(ship_world(asked.study, CONFIGURATION)))
        elif asked.command == "assets":
            provide_assets(asked.study, asked.again)
        elif asked.command == "plan":
            print(as_text(*forecast_of(asked.targets, CONFIGURATION)))
        elif asked.command == "export":
            export_run(asked.what, asked.run, asked.folder)
        elif asked.command == "jobs":
            print("\n".join(map(str, running_jobs())) or "No job computes here now.")
        else:
            print(*targets_of(asked.study, load_study(asked.study, CONFIGURATION)))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Error: interrupted; what was done is kept, and the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def export_run(what: str, run: str, folder: Path) -> None:
    """Put a run's model or its images into a folder of their own."""
    from corelib.exporting import export_images, export_model  # here: no other command needs torch

    (export_model if what == "model" else export_images)(run, folder)
    print(folder)


def provide_assets(study: str, again: bool) -> None:
    """Fetch, check and lock the assets of a study."""
    from corelib.worlds.provisioning import Provision  # here: no other command needs the Hub's client

    plan = plan_of(study, CONFIGURATION)
    photo_style = plan.study.prompts.photo_style
    Provision(plan.adoption(), CONFIGURATION, photo_style, lambda line: print(line, flush=True)).make(again)


if __name__ == "__main__":
    sys.exit(main())
