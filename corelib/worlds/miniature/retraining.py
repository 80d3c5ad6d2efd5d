"""The gold standard of unlearning: the miniature's model, trained from scratch without the forget set (section 2).

Only the images of the forget styles are left out. The captions of all others, the vocabulary, the autoencoder, and with
the same seed the initial weights are those of the base model. The text encoder never sees the words of the forget
styles in these combinations.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from corelib.errors import ConfigurationError
from corelib.models.base_model import BaseModel
from corelib.models.device import set_reproducible
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.retraining import RetrainingStage
from corelib.worlds.miniature.pipeline import fit_pipeline
from corelib.worlds.miniature.training import WorldImages, load_world_images


def retrain_pipeline(settings: RetrainingStage, context: StageContext) -> StageResult:
    """Stage: train `pipeline` on the world's images without those of `settings.forget`, with the base's autoencoder.

    Files, facts and errors are those of `corelib.worlds.miniature.pipeline.train_pipeline`.
    """
    set_reproducible(context.threads)
    world = without_styles(load_world_images(context.inputs["images"].file("images")), settings.forget)
    return fit_pipeline(settings, world, BaseModel(context.inputs["pipeline"]).autoencoder(), context)


def without_styles(world: WorldImages, left_out: Collection[str]) -> WorldImages:
    """The images of all other styles, in their order. Raises `ConfigurationError` if none remain."""
    kept = [number for number, style in enumerate(world.styles) if style not in left_out]
    if not kept:
        raise ConfigurationError(
            f"tasks: all {len(set(world.styles))} styles are forgotten, expected at least one to train on."
        )
    return WorldImages(
        pixels=world.pixels[torch.tensor(kept)],
        styles=[world.styles[number] for number in kept],
        objects=[world.objects[number] for number in kept],
        indices=[world.indices[number] for number in kept],
    )
