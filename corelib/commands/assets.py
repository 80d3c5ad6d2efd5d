"""`python -m corelib assets`, which `make assets` calls: download, check and lock the assets of a study."""

from __future__ import annotations

import argparse

from corelib.commands.arguments import CONFIGURATION, add_study
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.schema import Study
from corelib.worlds.assets.image_index import RequiredImages

HELP = "download, check and lock the images and models that a study uses"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `study` and `--again`."""
    add_study(parser)
    parser.add_argument("--again", action="store_true", help="read all images again, even if they are locked")


def run(arguments: argparse.Namespace) -> int:
    """Provide the assets, and print each step."""
    plan = load_plan(arguments.study, CONFIGURATION)
    if plan.study.world.kind != "miniature" or not plan.study.models:
        _provide_world(plan, arguments.again)
    if plan.study.models:
        from corelib.maintenance.model_locking import lock_models  # imported here: it needs torch

        lock_models(plan.given_models(), plan.world.unet_folder, CONFIGURATION, _say)
    return 0


def _provide_world(plan: Plan, again: bool) -> None:
    from corelib.maintenance.asset_provision import Provision  # imported here: no other command needs the Hub's client

    photo_style = plan.study.prompts.photo_style if plan.study.world.kind == "unlearn_canvas" else None
    wanted = required_images(plan.study)
    assets = plan.asset_world.assets()
    Provision(assets, wanted, CONFIGURATION, photo_style, plan.asset_world.compvis_weights, _say).make(again)


def required_images(study: Study) -> RequiredImages:
    """The images of its world that a study needs."""
    world = study.world
    return RequiredImages(world.styles, study.training_objects, world.images_per_cell, bool(world.objects))


def _say(line: str) -> None:
    print(line, flush=True)
