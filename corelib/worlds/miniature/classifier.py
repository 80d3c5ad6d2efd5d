"""The miniature's classifiers: small convolutional networks from timm that predict the style or object of an image."""

from __future__ import annotations

import io

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from corelib.errors import ConfigurationError
from corelib.files.atomic import atomic_write
from corelib.files.hashing import sha256_of_path
from corelib.models.device import set_reproducible
from corelib.randomness import generator
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.miniature import ClassifierStage
from corelib.worlds.miniature.training import (
    WorldImages,
    draw_batch,
    load_world_images,
    seeded_initialisation,
    to_model_range,
    train,
)

MAX_SHIFT = 2  # pixels, in either direction

MAX_NOISE = 0.1  # standard deviation, pixels from -1 to 1

MAX_TINT = 0.08  # in either direction, per channel

EVALUATION_BATCH = 512


def train_classifier(settings: ClassifierStage, context: StageContext) -> StageResult:
    """Train on `work.inputs["images"]` except the last `held_out_per_cell` of each cell; save `classifier.pth`.

    The file contains `{"model_state_dict": ...}`, as in the benchmark. Images are normalised by `Normalize(0.5, 0.5)`.
    Facts: a description that suffices to rebuild the network, and its accuracy on the held-out images (0 to 1).
    Raises `ConfigurationError` if an image's label is not a class or if no images remain for training, `UserError` if
    the loss becomes non-finite.
    """
    set_reproducible(context.threads)
    world = load_world_images(context.inputs["images"].file("images"))
    labels = _labels(world, settings)
    held_out = _held_out(world, settings.classifier.held_out_per_cell)
    pixels, targets = world.pixels[~held_out], labels[~held_out]
    with seeded_initialisation(settings.seed, "classifier", settings.label):
        model = timm.create_model(settings.classifier.architecture, pretrained=False, num_classes=len(settings.classes))
    training = settings.classifier.training

    def loss_at(step: int) -> Tensor:
        batch = draw_batch(settings.seed, step, len(pixels), training.batch)
        images = augment(to_model_range(pixels[batch]), generator(settings.seed, "augmentation", step))
        return functional.cross_entropy(model(images), targets[batch], label_smoothing=0.05)

    train(f"{settings.label} classifier", model, training, loss_at, context)
    accuracy = _accuracy(model, world.pixels[held_out], labels[held_out])
    content = io.BytesIO()  # not directly into the file: torch would store its temporary name
    torch.save({"model_state_dict": model.state_dict()}, content)
    with atomic_write(context.folder / "classifier.pth") as temporary:
        temporary.write_bytes(content.getvalue())
    network = {
        "weights": "classifier.pth",
        "sha256": sha256_of_path(context.folder / "classifier.pth"),
        "architecture": settings.classifier.architecture,
        "classes": settings.classes,
        "resolution": world.pixels.shape[-1],
    }
    facts = {"classifiers": {settings.label: network}, "held_out_accuracy": accuracy}
    return StageResult(files=["classifier.pth"], facts=facts)


def augment(images: Tensor, draws: torch.Generator) -> Tensor:
    """Images (batch, 3, h, w), each randomly shifted, blurred, tinted and made noisy to resemble decoded latents."""
    batch, _, height, width = images.shape
    softened = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    images = images.lerp(softened, torch.rand(batch, 1, 1, 1, generator=draws))
    padded = functional.pad(images, (MAX_SHIFT,) * 4, mode="replicate")
    shifts = torch.randint(2 * MAX_SHIFT + 1, (2, batch, 1), generator=draws)
    rows = (torch.arange(height) + shifts[0])[:, None, :, None]
    columns = (torch.arange(width) + shifts[1])[:, None, None, :]
    images = padded[torch.arange(batch)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    tint = MAX_TINT * (2 * torch.rand(batch, 3, 1, 1, generator=draws) - 1)
    noise = MAX_NOISE * torch.rand(batch, 1, 1, 1, generator=draws) * torch.randn(images.shape, generator=draws)
    return images + tint + noise


def _labels(world: WorldImages, settings: ClassifierStage) -> Tensor:
    """The class of each image, (images,)."""
    names = world.styles if settings.label == "style" else world.objects
    if unknown := sorted(set(names) - set(settings.classes)):
        raise ConfigurationError(
            f"{settings.label} `{unknown[0]}`: images have this label, but the classifier does not, expected one of "
            f"{', '.join(settings.classes)}."
        )
    return torch.tensor([settings.classes.index(name) for name in names])


def _held_out(world: WorldImages, per_cell: int) -> Tensor:
    """Which images are the last `per_cell` of their cell, (images,) bool."""
    images_per_cell = max(world.indices)
    if per_cell >= images_per_cell:
        raise ConfigurationError(
            f"held_out_per_cell: {per_cell}, expected fewer than the {images_per_cell} images of a cell."
        )
    return torch.tensor(world.indices) > images_per_cell - per_cell


@torch.no_grad()
def _accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    predictions = torch.cat([model(to_model_range(batch)).argmax(1) for batch in pixels.split(EVALUATION_BATCH)])
    return (predictions == labels).double().mean().item()
