"""Distances between a model and one that was trained without the forget set.

Unlearning is defined by the retrained model (section 2 of the paper): the nearer a model is to it, the better it has
unlearned. Three distances are measured, on forget and on retain styles separately:

- the share of images, with the same prompt and noise, for which the classifiers predict the same style, and object;
- the FID between the images of the two models;
- the mean squared difference of the predicted noise, over the dimensions of the latents and over images, by timestep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.data.latents import LatentCache
from corelib.data.slices import Pair, product_pairs
from corelib.errors import ArtefactError
from corelib.evaluation.features import extract_features
from corelib.evaluation.fid import frechet_distance
from corelib.evaluation.predictions import read_predictions
from corelib.files.json_files import write_json
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.device import Device
from corelib.randomness import generator
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths
from corelib.settings.distances import DISTANCES_FILE, DistancesStage
from corelib.settings.evaluation import LABELS
from corelib.settings.precision import Precision
from corelib.settings.prompts import Wording

RETRAINED = "retrained_"
"""Beginning of the roles of the inputs that belong to the retrained model."""

SETS = ("forget", "retain")

KEY = ["style", "object", "seed"]
"""The columns that name an image in a table of predictions."""


def measure_distances(settings: DistancesStage, context: StageContext) -> StageResult:
    """Stage: measure the distances of a model to a retrained one on one task.

    Raises `ArtefactError` if an image of the grid is missing, or if a predicted noise of the retrained model is not
    finite. A model whose noise is not finite has distances that are null.
    """
    device = Device(Precision(gpu="fp32", cpu="fp32"), context.threads)
    found: dict[str, Any] = {}
    for name in SETS:
        styles = set(settings.forget if name == "forget" else settings.retain)
        grid = [image for image in settings.grid if image[0] in styles]
        found[name] = {
            "agreement": agreement(context.inputs["predictions"], context.inputs[f"{RETRAINED}predictions"], grid),
            "fid": _fid(settings, context, grid),
        }
    predictors = {
        prefix: NoisePredictions(context.inputs, prefix, wording, device, settings.batch)
        for prefix, wording in (("", settings.wording), (RETRAINED, settings.retrained_wording))
    }
    latents = LatentCache.of_run(context.inputs["latents"])
    for name, styles_of_set in (("forget", settings.forget), ("retain", settings.retain)):
        pairs = product_pairs(styles_of_set, settings.objects, [settings.distances.image])
        found[name]["noise"] = [
            _finite(noise_difference(predictors[""], predictors[RETRAINED], latents, pairs, timestep))
            for timestep in settings.distances.timesteps
        ]
    write_json(context.folder / DISTANCES_FILE, {"timesteps": settings.distances.timesteps, "sets": found})
    return StageResult([DISTANCES_FILE])


def agreement(first: Manifest, second: Manifest, grid: Sequence[tuple[str, str, int]]) -> dict[str, int]:
    """The number of images of a grid, `n`, and of those with the same predicted style, object, and both.

    Raises `ArtefactError` if a model has no prediction for an image.
    """
    columns = [f"predicted_{label}" for label in LABELS]
    tables = [read_predictions(manifest).set_index(KEY)[columns] for manifest in (first, second)]
    for manifest, table in zip((first, second), tables, strict=True):
        if missing := [image for image in grid if image not in table.index]:
            raise ArtefactError(f"{manifest.folder}: it has no prediction for the image {missing[0]}.")
    chosen = [table.loc[list(grid)] for table in tables]
    equal = chosen[0].eq(chosen[1])
    counts = {label: int(equal[f"predicted_{label}"].sum()) for label in LABELS}
    return {**counts, "both": int(equal.all(axis=1).sum()), "n": len(grid)}


def _fid(settings: DistancesStage, context: StageContext, grid: Sequence[tuple[str, str, int]]) -> float:
    """The FID between the images of a grid that the two models have sampled."""
    features = []
    for prefix in ("", RETRAINED):
        paths = image_paths(context.inputs[f"{prefix}samples"])
        features.append(extract_features([paths[image] for image in grid], settings.fid, context))
    return frechet_distance(*features)


class NoisePredictions:
    """The noise that a model predicts for captions.

    Args:
        inputs: manifests of the model by role: a pipeline, its embeddings of captions, and a delta if it has one.
        prefix: beginning of the roles.
        wording: the wording of the captions.
        device: the device, and precision, of the U-Net.
        batch: number of latents in a pass.
    """

    def __init__(
        self, inputs: Mapping[str, Manifest], prefix: str, wording: Wording, device: Device, batch: int
    ) -> None:
        base = BaseModel(inputs[f"{prefix}pipeline"])
        self.unet: UNet2DConditionModel = base.unet()
        if f"{prefix}delta" in inputs:
            load_delta(inputs[f"{prefix}delta"].file(DELTA_FILE), self.unet, base.unet_sha256)
        self.unet.to(device.torch_device)
        self.scheduler = base.scheduler()
        self._embeddings = EmbeddingCache.of_run(inputs[f"{prefix}embeddings"])
        self._wording, self._device, self._batch = wording, device, batch

    @torch.no_grad()
    def of(self, latents: Tensor, noise: Tensor, pairs: Sequence[Pair], timestep: int) -> Tensor:
        """The noise predicted in x_t, (n, c, h, w) on the CPU.

        Args:
            latents: z of the images, (n, c, h, w).
            noise: the noise that is added, (n, c, h, w).
            pairs: the images, whose captions condition the prediction.
            timestep: t.
        """
        timesteps = torch.full((len(pairs),), timestep)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        prompts = self._embeddings.of([self._wording.prompt(pair.style, pair.object) for pair in pairs])
        parts = [
            self.unet(part.to(device), step.to(device), encoder_hidden_states=text.to(device)).sample.float().cpu()
            for device in [self._device.torch_device]
            for part, step, text in zip(
                noisy.split(self._batch), timesteps.split(self._batch), prompts.split(self._batch), strict=True
            )
        ]
        return torch.cat(parts)


def noise_difference(
    first: NoisePredictions, second: NoisePredictions, latents: LatentCache, pairs: Sequence[Pair], timestep: int
) -> float:
    """The mean squared difference of two predictions at one timestep, over dimensions and images.

    Each image has its own noise, a function of style, object, index and timestep, which is the same for all models.
    """
    posterior, noise = (
        torch.stack([_noise_of(pair, timestep, name, latents.shape) for pair in pairs])
        for name in ("posterior", "noise")
    )
    drawn = latents.draw(list(pairs), posterior)
    one, other = (predictions.of(drawn, noise, pairs, timestep) for predictions in (first, second))
    if not other.isfinite().all():
        raise ArtefactError("the retrained model predicts noise that is not finite; check its training.")
    return float((one - other).square().mean())


def _noise_of(pair: Pair, timestep: int, name: str, shape: tuple[int, ...]) -> Tensor:
    draws = generator("distances", name, pair.style, pair.object, pair.index, timestep)
    return torch.randn(shape, generator=draws)


def _finite(value: float) -> float | None:
    """A number, or None if it is not finite, for which JSON has no value."""
    return value if torch.tensor(value).isfinite() else None
