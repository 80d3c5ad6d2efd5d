"""`python -m corelib assets`, which `make assets` calls: download, check and lock the assets of a study."""

from __future__ import annotations

import argparse

from corelib.commands.arguments import CONFIGURATION, add_study
from corelib.study.loading import load_plan

HELP = "download, check and lock the files of the paper's world"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `study` and `--again`."""
    add_study(parser)
    parser.add_argument("--again", action="store_true", help="read all images again, even if they are locked")


def run(arguments: argparse.Namespace) -> int:
    """Provide the assets, and print each step."""
    from corelib.maintenance.asset_provision import Provision  # imported here: no other command needs the Hub's client
    from corelib.worlds.unlearn_canvas.index_building import RequiredImages

    plan = load_plan(arguments.study, CONFIGURATION)
    world, photo_style = plan.study.world, plan.study.prompts.photo_style
    wanted = RequiredImages(world.styles, world.objects, world.images_per_cell)
    provision = Provision(
        plan.unlearn_canvas.assets(),
        wanted,
        CONFIGURATION,
        photo_style,
        plan.unlearn_canvas.compvis_weights,
        lambda line: print(line, flush=True),
    )
    provision.make(arguments.again)
    return 0
