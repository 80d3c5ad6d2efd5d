"""The miniature's autoencoder: a small AutoencoderKL trained on its rendered images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from corelib.files.atomic import atomic_folder
from corelib.models.device import set_reproducible
from corelib.randomness import generator
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.miniature import Autoencoder, AutoencoderStage
from corelib.worlds.miniature.training import (
    draw_batch,
    load_world_images,
    seeded_initialisation,
    to_model_range,
    train,
)

ENCODING_BATCH = 256

INITIAL_LOGVAR = -6.0  # narrow posteriors; otherwise noise dominates the latents for the first hundred steps


def train_autoencoder(settings: AutoencoderStage, context: StageContext) -> StageResult:
    """Train on all images of `work.inputs["images"]`; save the folder `vae`, scaled to latents of unit deviation.

    Facts: the final loss, the scaling factor, and the PSNR of the reconstructions in dB (peak 2, pixels from -1 to 1).
    Raises `UserError` if the loss becomes non-finite.
    """
    set_reproducible(context.threads)
    pixels = load_world_images(context.inputs["images"].file("images")).pixels
    with seeded_initialisation(settings.seed, "autoencoder"):
        vae = build_autoencoder(settings.autoencoder, settings.resolution)
    training = settings.autoencoder.training

    def loss_at(step: int) -> Tensor:
        images = to_model_range(pixels[draw_batch(settings.seed, step, len(pixels), training.batch)])
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator(settings.seed, "posterior", step))
        reconstructions = vae.decode(posterior.mean + posterior.std * noise).sample
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return (reconstructions - images).square().mean() + settings.autoencoder.kl_weight * divergence

    final_loss = train("autoencoder", vae, training, loss_at, context)
    moments = encode_posteriors(vae, pixels)
    scaling_factor = 1 / _deviation(moments)
    vae.register_to_config(scaling_factor=scaling_factor)
    psnr = _psnr(vae, pixels, moments)
    with atomic_folder(context.folder / "vae") as folder:
        vae.save_pretrained(folder, safe_serialization=True)
    facts = {"final_loss": final_loss, "scaling_factor": scaling_factor, "psnr": psnr}
    return StageResult(files=["vae"], facts=facts)


def build_autoencoder(settings: Autoencoder, resolution: int) -> AutoencoderKL:
    """An untrained autoencoder with one residual block per level."""
    levels = len(settings.channels)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=1,
        latent_channels=settings.latent_channels,
        norm_num_groups=num_norm_groups(settings.channels),
        sample_size=resolution,
        force_upcast=False,
    )
    nn.init.constant_(vae.quant_conv.bias[settings.latent_channels :].detach(), INITIAL_LOGVAR)
    return vae


def num_norm_groups(channels: Sequence[int]) -> int:
    """Number of groups in the group norms: each group has eight channels or more, as in the large models.

    Smaller groups normalise away an image's mean colour.
    """
    width = math.gcd(*channels)
    return max(
        groups for groups in range(1, width + 1) if width % groups == 0 and (width // groups >= 8 or groups == 1)
    )


@torch.no_grad()
def encode_posteriors(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Unscaled posterior of each uint8 image: (images, 2, channels, h, w), means first, standard deviations second."""
    moments = []
    for batch in pixels.split(ENCODING_BATCH):
        posterior = vae.encode(to_model_range(batch)).latent_dist
        moments.append(torch.stack([posterior.mean, posterior.std], dim=1))
    return torch.cat(moments)


def _deviation(moments: Tensor) -> float:
    """Standard deviation over all elements of latents drawn from the posteriors."""
    means, deviations = moments.double().unbind(1)
    return math.sqrt(means.var(unbiased=False).item() + deviations.square().mean().item())


@torch.no_grad()
def _psnr(vae: AutoencoderKL, pixels: Tensor, moments: Tensor) -> float:
    squared_error = 0.0
    for batch, posteriors in zip(pixels.split(ENCODING_BATCH), moments.split(ENCODING_BATCH), strict=True):
        reconstructions = vae.decode(posteriors[:, 0]).sample.clamp(-1, 1)
        squared_error += (reconstructions - to_model_range(batch)).square().sum(dtype=torch.float64).item()
    return 10 * math.log10(4 / max(squared_error / pixels.numel(), 1e-12))
