"""Unlearning on a pipeline in memory, with the trainer of the stage `unlearning`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache, embed_texts
from corelib.data.latents import LatentCache, encode_pairs
from corelib.errors import ConfigurationError
from corelib.in_memory.paper_methods import find_method, paper_study
from corelib.in_memory.pipeline_in_memory import PipelineInMemory
from corelib.in_memory.torch_settings import PipelineDevice, reproducible
from corelib.in_memory.training_examples import TrainingExamples, UserImage, collect_examples
from corelib.models.delta import Delta
from corelib.models.student_teacher import StudentAndTeacher
from corelib.settings.data import Encoding
from corelib.settings.precision import TrainingPrecision
from corelib.settings.section import Section
from corelib.settings.unlearning import Length, TrainingSettings
from corelib.study.schema import Method
from corelib.unlearning.masks import as_factors
from corelib.unlearning.saliency import salient_weights
from corelib.unlearning.trainer import Trainer, scheduler_options
from corelib.unlearning.training_data import TrainingData
from corelib.unlearning.training_file import TRAINING_COLUMNS

log = logging.getLogger(__name__)

RUN = "in memory"
"""Identity of the training run in a delta that was trained outside the workflow."""

SOURCE = "the training images"

AnySection = TypeVar("AnySection", bound=Section)


@dataclass(frozen=True)
class UnlearnedModel:
    """The result of unlearning.

    Attributes:
        delta: the trained tensors, in fp32 on the CPU; `corelib.library.apply_delta` puts them into a pipeline.
        losses: the values of every step by name, (steps,) each: `loss` is L of equation 4, `unlearn` and `retain` are
            its terms L_f and L_r without their weights, and `gradient_norm` is the norm of the gradient of all trained
            tensors together.
        diverged_at: number of the step whose loss or gradient was not finite, at which training ended; None if every
            step was finite.
        training: all settings of the training.
    """

    delta: Delta
    losses: Mapping[str, NDArray[np.float32]]
    diverged_at: int | None
    training: TrainingSettings

    def save(self, path: str | Path) -> None:
        """Write the delta as safetensors, in the format of the workflow's deltas; equal deltas are equal files."""
        self.delta.save(Path(path))


def unlearn(
    pipeline: Any,
    forget_images: Sequence[UserImage],
    forget_prompts: str | Sequence[str],
    anchor_prompts: str | Sequence[str],
    retain_images: Sequence[UserImage] = (),
    retain_prompts: str | Sequence[str] = (),
    *,
    steps: int,
    method: str | Method = "core",
    anchor_images: Sequence[UserImage] = (),
    learning_rate: float | None = None,
    batch: int | None = None,
    resolution: int | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
    seed: int = 0,
) -> UnlearnedModel:
    """Unlearn a concept (section 3 of the paper). The pipeline itself does not change.

    Training runs on the device of `pipeline.unet`, on a copy of it in fp32. The same call gives the same bits on the
    same device, with the same number of CPU threads and the same versions of the packages. On a GPU, set the
    environment variable `CUBLAS_WORKSPACE_CONFIG=:4096:8` before torch uses the GPU. Torch's random state is neither
    read nor changed. The pipeline's progress bar shows the steps; `pipeline.set_progress_bar_config(disable=True)`
    hides it.

    Args:
        pipeline: a `StableDiffusionPipeline` of Stable Diffusion v1 or v2, or of a model built like them. Any
            scheduler is accepted; only its noise schedule is used.
        forget_images: images of the concept to forget, as Pillow images or paths of JPEG or PNG files. The central
            square of each is resized to `resolution`.
        forget_prompts: p_f, one for each forget image, or one text for all.
        anchor_prompts: p_a, the concept that the model shall show instead: one for each forget image, or one text for
            all. "" is the empty prompt.
        retain_images: images whose concepts the model shall keep. Methods without a retain term (ESD) ignore them.
        retain_prompts: p_r, one for each retain image, or one text for all.
        steps: number of training steps.
        method: name of a method in `config/config.yaml` (`corelib.library.methods` lists them), or a method.
        anchor_images: images of the anchor concepts, one for each forget image. Only methods that train on them need
            them (`ca_model`, `ca_noise`); `ca_released` needs images that the pipeline itself generated.
        learning_rate: learning rate of Adam; that of the method if None.
        batch: number of forget pairs in a step, and of retain pairs; that of the method if None.
        resolution: side of the training images in pixels; that for which the U-Net was built if None.
        precision: format in which the U-Net computes; the trained tensors stay in fp32. If None, it is that of the
            paper's study: bf16 on a GPU, fp32 on a CPU.
        seed: seed of all draws: order, noise, timesteps and latents.

    Raises `ConfigurationError` for arguments that do not fit together, and `AssetError` for an image or a pipeline that
    cannot be used. Both are raised before training, and errors in arguments before anything is computed.
    """
    recipe = find_method(method)
    examples = collect_examples(
        recipe.objective,
        (forget_images, forget_prompts),
        (anchor_images, anchor_prompts),
        (retain_images, retain_prompts),
    )
    training = _training(recipe, examples, steps, learning_rate, batch, seed)
    protocol = paper_study().training
    formats = {} if precision is None else {"gpu": precision, "cpu": precision}
    model = PipelineInMemory(pipeline)
    encoding = _checked(
        Encoding,
        resolution=model.resolution if resolution is None else resolution,
        interpolation=paper_study().encoding.interpolation,
        batch=paper_study().encoding.batch,
    )
    if encoding.resolution % model.factor:
        raise ConfigurationError(
            f"resolution is {encoding.resolution}, expected a multiple of {model.factor}, by which the autoencoder "
            "divides it."
        )
    base = model.folder_identity(rounded=False) or model.tensors_identity()
    device = PipelineDevice(model.device, _checked(TrainingPrecision, **(protocol.precision.model_dump() | formats)))
    with reproducible(device.torch_device):
        scheduler = model.scheduler(**scheduler_options(recipe.objective))
        material = _training_data(model, examples, encoding, scheduler.alphas_cumprod, device.torch_device)
        masks = _masks(model, recipe, material, training, device)
        models = StudentAndTeacher(model.unet(), recipe.trained, device)
        trainer = Trainer(training, models, material, scheduler, as_factors(masks, models.trained if masks else {}))
        with model.progress_bar(trainer.steps) as bar:

            def show_step(_: int) -> bool:
                if bar is not None:
                    bar.update()
                return False

            diverged_at = trainer.train(0, show_step)
    values = trainer.log.state().numpy()
    tensors = {name: parameter.detach().cpu() for name, parameter in models.trained.items()}
    return UnlearnedModel(
        delta=Delta(tensors, recipe.trained, base, RUN),
        losses={name: values[:, number] for number, name in enumerate(TRAINING_COLUMNS)},
        diverged_at=diverged_at,
        training=training,
    )


def _training(
    recipe: Method, examples: TrainingExamples, steps: int, learning_rate: float | None, batch: int | None, seed: int
) -> TrainingSettings:
    """The settings of the training: those of the method and of the paper's study, and the user's."""
    protocol = paper_study().training
    settings = _checked(
        TrainingSettings,
        objective=recipe.objective,
        trained=recipe.trained,
        candidates=examples.candidates,
        draw=None,
        learning_rate=recipe.learning_rate if learning_rate is None else learning_rate,
        batch=recipe.batch if batch is None else batch,
        length=_checked(Length, steps=steps),
        min_steps=1,
        batch_counts=protocol.batch_counts,
        reduction=protocol.reduction,
        optimizer=protocol.optimizer,
        kernels=protocol.kernels,
        seed=seed,
    )
    if learning_rate is not None and settings.learning_rate >= 1:
        raise ConfigurationError(
            f"learning_rate is {settings.learning_rate:g}, expected a number below 1: Adam changes each weight by "
            "about the learning rate in a step."
        )
    return settings


def _checked(kind: type[AnySection], **leaves: Any) -> AnySection:
    """A section of settings. Raises `ConfigurationError` with one sentence for the first leaf that is invalid."""
    try:
        return kind(**leaves)
    except ValidationError as error:
        first = error.errors()[0]
        name = "precision" if kind is TrainingPrecision else ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{name} is {first['input']!r}: {first['msg']}.") from None


def _training_data(
    model: PipelineInMemory,
    examples: TrainingExamples,
    encoding: Encoding,
    alphas_cumprod: Tensor,
    device: torch.device,
) -> TrainingData:
    """The pairs on which to train: prompts are embedded and images encoded once, in fp32."""
    text_encoder = model.text_encoder().to(device)
    embedded = embed_texts(model.tokenizer, text_encoder, examples.texts, device)
    autoencoder = model.autoencoder().to(device)
    pairs = list(examples.images)
    moments = encode_pairs(autoencoder, pairs, examples.read, encoding, device)
    latents = LatentCache(pairs, moments, model.scaling_factor, sha256=[], source=SOURCE)
    return TrainingData(
        examples.slice,
        latents,
        latents,
        EmbeddingCache(examples.texts, embedded, SOURCE),
        examples.prompt,
        alphas_cumprod,
    )


def _masks(
    model: PipelineInMemory, recipe: Method, material: TrainingData, training: TrainingSettings, device: PipelineDevice
) -> dict[str, Tensor]:
    """The saliency masks of the method (SalUn, equation 9); empty if it has none."""
    if recipe.saliency is None:
        return {}
    models = StudentAndTeacher(model.unet(), recipe.trained, device)
    return salient_weights(recipe.saliency, models, material, training.batch, training.seed)
