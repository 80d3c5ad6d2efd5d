"""The miniature's autoencoder: a small AutoencoderKL trained on its rendered images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from corelib.files.atomic import folder_written_whole
from corelib.models.device import compute_with
from corelib.randomness import generator
from corelib.runs.stage import Outcome, Work
from corelib.settings.miniature import Autoencoder, AutoencoderStage
from corelib.worlds.miniature.training import drawn_batch, initialisation, load_world_images, scaled, train

ENCODING_BATCH = 256

FIRST_LOGVAR = -6.0  # narrow posteriors; otherwise noise dominates the latents for the first hundred steps


def train_autoencoder(settings: AutoencoderStage, work: Work) -> Outcome:
    """Train on all images of `work.inputs["images"]`; save the folder `vae`, scaled to latents of unit deviation.

    Facts: the final loss, the scaling factor, and the PSNR of the reconstructions in dB (peak 2, pixels from -1 to 1).
    Raises `UserError` if the loss becomes non-finite.
    """
    compute_with(work.threads)
    pixels = load_world_images(work.inputs["images"].file("images")).pixels
    with initialisation(settings.seed, "autoencoder"):
        vae = build_autoencoder(settings.autoencoder, settings.resolution)
    training = settings.autoencoder.training

    def loss_at(step: int) -> Tensor:
        images = scaled(pixels[drawn_batch(settings.seed, step, len(pixels), training.batch)])
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator(settings.seed, "posterior", step))
        reconstructions = vae.decode(posterior.mean + posterior.std * noise).sample
        divergence = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return (reconstructions - images).square().mean() + settings.autoencoder.kl_weight * divergence

    final_loss = train("autoencoder", vae, training, loss_at, work)
    moments = encoded(vae, pixels)
    scaling_factor = 1 / _deviation(moments)
    vae.register_to_config(scaling_factor=scaling_factor)
    psnr = _psnr(vae, pixels, moments)
    with folder_written_whole(work.folder / "vae") as folder:
        vae.save_pretrained(folder, safe_serialization=True)
    facts = {"final_loss": final_loss, "scaling_factor": scaling_factor, "psnr": psnr}
    return Outcome(files=["vae"], facts=facts)


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
        norm_num_groups=normalisation_groups(settings.channels),
        sample_size=resolution,
        force_upcast=False,
    )
    nn.init.constant_(vae.quant_conv.bias[settings.latent_channels :].detach(), FIRST_LOGVAR)
    return vae


def normalisation_groups(channels: Sequence[int]) -> int:
    """Number of groups in the group norms: each group has eight channels or more, as in the large models.

    Smaller groups normalise away an image's mean colour.
    """
    width = math.gcd(*channels)
    return max(
        groups for groups in range(1, width + 1) if width % groups == 0 and (width // groups >= 8 or groups == 1)
    )


@torch.no_grad()
def encoded(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Unscaled posterior of each uint8 image: (images, 2, channels, h, w), means first, standard deviations second."""
    moments = []
    for batch in pixels.split(ENCODING_BATCH):
        posterior = vae.encode(scaled(batch)).latent_dist
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
        squared_error += (reconstructions - scaled(batch)).square().sum(dtype=torch.float64).item()
    return 10 * math.log10(4 / max(squared_error / pixels.numel(), 1e-12))
