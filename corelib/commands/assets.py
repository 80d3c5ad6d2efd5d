"""`python -m corelib assets`, which `make assets` calls: download, check and lock the assets of a study."""

from __future__ import annotations

import argparse

from corelib.commands.arguments import CONFIGURATION, add_study
from corelib.study.loading import load_plan
from corelib.study.plan import Plan

HELP = "download, check and lock the files of the paper's world, and the models of a study"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `study` and `--again`."""
    add_study(parser)
    parser.add_argument("--again", action="store_true", help="read all images again, even if they are locked")


def run(arguments: argparse.Namespace) -> int:
    """Provide the assets, and print each step."""
    plan = load_plan(arguments.study, CONFIGURATION)
    if plan.study.world.kind == "unlearn_canvas" or not plan.study.models:
        _provide_world(plan, arguments.again)
    if plan.study.models:
        from corelib.maintenance.model_locking import lock_models  # imported here: it needs torch

        lock_models(plan.given_models(), plan.world.unet_folder, CONFIGURATION, _say)
    return 0


def _provide_world(plan: Plan, again: bool) -> None:
    from corelib.maintenance.asset_provision import Provision  # imported here: no other command needs the Hub's client
    from corelib.worlds.unlearn_canvas.index_building import RequiredImages

    world, photo_style = plan.study.world, plan.study.prompts.photo_style
    wanted = RequiredImages(world.styles, world.objects, world.images_per_cell)
    assets = plan.unlearn_canvas.assets()
    Provision(assets, wanted, CONFIGURATION, photo_style, plan.unlearn_canvas.compvis_weights, _say).make(again)


def _say(line: str) -> None:
    print(line, flush=True)
