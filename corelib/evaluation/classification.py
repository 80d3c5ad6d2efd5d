"""Classification of every sampled image by style and by object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from corelib.errors import AssetError
from corelib.evaluation.predictions import PREDICTIONS
from corelib.files.atomic import atomic_write
from corelib.files.image_files import read_image
from corelib.models.classifier import ImageClassifier
from corelib.models.device import Device
from corelib.models.judge import Judge
from corelib.runs.manifest import Manifest
from corelib.runs.progress import Progress
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths
from corelib.sampling.grid import image_name
from corelib.settings.evaluation import LABELS, PredictionsStage
from corelib.settings.precision import Precision


def classify_images(settings: PredictionsStage, context: StageContext) -> StageResult:
    """Stage: write a table with one row per image: prompted and predicted style and object, top-1 probabilities.

    Predictions of a label for which the world has no classifier are missing values.
    Raises `AssetError` if a classifier's probabilities are not finite.
    """
    device = Device(Precision(gpu="fp32", cpu="fp32"), context.threads)
    classifiers = {
        label: _load_judge(context.inputs[role], label, device)
        for label in LABELS
        if (role := f"{label}_classifier") in context.inputs
    }
    samples = context.inputs["samples"]
    paths = image_paths(samples)
    keys = list(paths)
    progress = Progress("images", len(keys))
    parts = []
    for start in range(0, len(keys), settings.classification.batch):
        batch = keys[start : start + settings.classification.batch]
        images = [read_image(paths[key]) for key in batch]
        part = pd.DataFrame(batch, columns=["style", "object", "seed"])
        for label, classifier in classifiers.items():
            probabilities = classifier.probabilities(images)
            _check_finite(label, probabilities, [paths[key] for key in batch])
            best = probabilities.max(dim=1)
            part[f"predicted_{label}"] = [classifier.classes[index] for index in best.indices.tolist()]
            part[f"{label}_probability"] = best.values.numpy()
        for label in LABELS:
            if label not in classifiers:
                part[f"predicted_{label}"] = pd.array([None] * len(batch), dtype="string")
        parts.append(part)
        progress.report(start + len(batch))
    predictions = pd.concat(parts, ignore_index=True)
    flagged = set(samples.facts["flagged"])
    names = [image_name(*key) for key in keys]
    predictions["flagged"] = [name in flagged for name in names]
    with atomic_write(context.folder / PREDICTIONS) as temporary:
        predictions.to_parquet(temporary, index=False)
    return StageResult([PREDICTIONS], {"images": len(predictions), "diverged_at": samples.facts["diverged_at"]})


def _load_judge(world: Manifest, label: str, device: Device) -> Judge:
    """The judge of a label that a world has. Raises `AssetError` or `ArtefactError` if its files do not fit."""
    facts = world.facts["classifiers"][label]
    if "prompts" not in facts:
        return ImageClassifier.of_run(world, label, device)
    from corelib.models.zero_shot import ZeroShotClassifier  # imported here: most judges do not need transformers

    folder = world.verified_external(facts["weights"], facts["sha256"])
    return ZeroShotClassifier(folder, facts["classes"], facts["prompts"], device.torch_device)


def _check_finite(label: str, probabilities: Tensor, paths: Sequence[Path]) -> None:
    """Raise `AssetError` if a probability is not finite; the maximum of NaNs would select the first class."""
    if not (is_finite := torch.isfinite(probabilities).all(dim=1)).all():
        first = paths[int(is_finite.int().argmin())]
        raise AssetError(f"{first}: the {label} classifier's probabilities are not finite; check its weights.")
