"""The base model, images and classifiers of the miniature, which the examples use in place of your own."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from corelib.library import ImageClassifier
from corelib.worlds.miniature.drawing import render_image

MODELS = Path(__file__).resolve().parent.parent / "config/pretrained"
OBJECTS = ["Circles", "Crosses", "Diamonds", "Hearts", "Squares", "Stars"]

torch.set_num_threads(1)  # networks as small as these are slower with more


def load_pipeline() -> StableDiffusionPipeline:
    """The base model: images of 32 pixels, 50 styles and 20 objects."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(MODELS / "pipeline"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def prompt(style: str, object_: str) -> str:
    """The caption of a style and an object."""
    return f"A {object_} image in {style.replace('_', ' ')} style."


def draw(style: str) -> list[Image.Image]:
    """A training image of each object in a style."""
    return [render_image(style, object_, 1, seed=0, resolution=32, photo_style="Seed_Images") for object_ in OBJECTS]


def prompts(style: str) -> list[str]:
    """The captions of these images."""
    return [prompt(style, object_) for object_ in OBJECTS]


def sample(pipeline: StableDiffusionPipeline, style: str) -> list[Image.Image]:
    """An image of each object in a style, sampled from the same noise each time."""
    noise = torch.Generator().manual_seed(188)
    return pipeline(prompts(style), num_inference_steps=20, guidance_scale=3.0, generator=noise).images


def load_classifier(label: str) -> ImageClassifier:
    """The classifier of styles (`style`) or of objects (`object`)."""
    facts = json.loads((MODELS / "world.json").read_text())["facts"]["classifiers"][label]
    weights, cpu = MODELS / facts["weights"], torch.device("cpu")
    return ImageClassifier(weights, facts["architecture"], facts["classes"], facts["resolution"], cpu)
