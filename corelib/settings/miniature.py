"""Settings of the stages that make the miniature world: rendering, autoencoder, denoiser, classifiers."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from corelib.settings.section import Section


class RenderingStage(Section):
    """Settings of the stage `images`: a rendered benchmark in UnlearnCanvas' layout, STYLE/OBJECT/INDEX.jpg."""

    styles: list[str]
    objects: list[str]
    photo_style: str
    images_per_cell: PositiveInt
    resolution: PositiveInt
    jpeg_quality: int = Field(ge=1, le=100)
    seed: int = Field(ge=0)


class Training(Section):
    """Length, batch size and learning rate of the training of one of the world's models (Adam).

    Attributes:
        steps: number of steps.
        batch: number of images in a step.
        learning_rate: learning rate of Adam.
    """

    steps: PositiveInt
    batch: PositiveInt
    learning_rate: PositiveFloat


class Autoencoder(Section):
    """A small AutoencoderKL: one level per entry of `channels`; each level except the last halves the image.

    Attributes:
        channels: number of channels of each level.
        latent_channels: number of channels of the latents.
        kl_weight: weight of the KL divergence in the loss.
    """

    channels: list[PositiveInt]
    latent_channels: PositiveInt
    kl_weight: PositiveFloat
    training: Training


class TextEncoder(Section):
    """A small CLIP text encoder with a vocabulary built from the world's own prompts.

    Attributes:
        width: width of the embeddings.
        layers: number of layers.
        heads: number of attention heads.
    """

    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt


class Denoiser(Section):
    """A small U-Net with cross-attention at every level, trained together with the text encoder.

    Attributes:
        channels: number of channels of each level.
        layers_per_block: number of residual layers of each level.
        attention_head_width: width of an attention head.
        caption_dropout: fraction of the training captions that are replaced by the empty prompt.
        ema_decay: decay of the moving average of the weights.
    """

    channels: list[PositiveInt]
    layers_per_block: PositiveInt
    attention_head_width: PositiveInt
    caption_dropout: float = Field(ge=0, lt=1)
    ema_decay: float = Field(ge=0, lt=1)
    training: Training


class Classifier(Section):
    """A small convolutional timm model, one for styles and one for objects.

    Attributes:
        architecture: timm name of the network.
        held_out_per_cell: number of images of each style and object that are not trained on, but test the classifier.
    """

    architecture: str
    training: Training
    held_out_per_cell: PositiveInt


class AutoencoderStage(Section):
    """Settings of the stage `autoencoder`."""

    autoencoder: Autoencoder
    resolution: PositiveInt
    seed: int


class PipelineStage(Section):
    """Settings of the stage `pipeline`, which trains the text encoder and the U-Net.

    `prompts[style][object]` is the training caption of the images of that cell.
    """

    text_encoder: TextEncoder
    denoiser: Denoiser
    prompts: dict[str, dict[str, str]]
    vocabulary: list[str]
    seed: int


class ClassifierStage(Section):
    """Settings of the stage `classifier`; `classes` are in the order of its outputs."""

    label: str = Field(pattern="^(style|object)$")
    classes: list[str]
    classifier: Classifier
    seed: int
