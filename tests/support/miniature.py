"""The shipped miniature: its pipeline in memory, its classifiers, and images of its styles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from support.checkout import REPOSITORY

from corelib.library import ImageClassifier
from corelib.study.loading import load_study
from corelib.worlds.miniature.drawing import render_image

MINI = load_study("mini", REPOSITORY / "config")
SHIPPED = REPOSITORY / "config/pretrained"
FACTS: Any = json.loads((SHIPPED / "world.json").read_text())["facts"]
WORDING = MINI.prompts.in_training


def shipped_pipeline(folder: Path = SHIPPED / "pipeline", **options: Any) -> StableDiffusionPipeline:
    """The base model of the miniature, as users load it."""
    return StableDiffusionPipeline.from_pretrained(str(folder), local_files_only=True, **options)


def shipped_classifier(label: str) -> ImageClassifier:
    """A classifier of the miniature: `style` or `object`."""
    facts = FACTS["classifiers"][label]
    weights = SHIPPED / facts["weights"]
    return ImageClassifier(weights, facts["architecture"], facts["classes"], facts["resolution"], torch.device("cpu"))


def render(style: str, object_: str, index: int) -> Image.Image:
    """An image of the miniature's benchmark, before JPEG compression."""
    return render_image(style, object_, index, seed=0, resolution=32, photo_style="Seed_Images")
