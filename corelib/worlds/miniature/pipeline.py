"""The miniature's latent diffusion model: a small Stable Diffusion with the real architecture.

Text encoder and U-Net are trained jointly by equation 1 of the paper, on the autoencoder's latents of the miniature's
images. They are saved with the autoencoder as an ordinary `StableDiffusionPipeline` folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from corelib.errors import ConfigurationError
from corelib.files.atomic import atomic_folder
from corelib.files.hashing import sha256_of_path
from corelib.models.device import set_reproducible
from corelib.models.pipeline_folder import save_pipeline
from corelib.models.pipeline_parts import AUTOENCODER, load_network
from corelib.randomness import generator
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.miniature import Denoiser, PipelineStage, TextEncoder
from corelib.worlds.miniature.autoencoder import encode_posteriors, num_norm_groups
from corelib.worlds.miniature.training import (
    MovingAverage,
    WorldImages,
    draw_batch,
    load_world_images,
    seeded_initialisation,
    train,
)

MAX_PROMPT_TOKENS = 12  # including start and end; the prompts of the world have ten

END_OF_WORD = "</w>"

START_OF_TEXT, END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"


def train_pipeline(settings: PipelineStage, context: StageContext) -> StageResult:
    """Train U-Net and text encoder on `work.inputs["images"]` through `work.inputs["autoencoder"]`; save `pipeline`.

    Facts: the paths of pipeline and U-Net, the sha256 of each part, the final loss, and the number of parameters of
    U-Net and text encoder. Raises `ConfigurationError` if a cell of the images has no prompt or if a prompt has words
    outside the vocabulary, `UserError` if the loss becomes non-finite.
    """
    set_reproducible(context.threads)
    world = load_world_images(context.inputs["images"].file("images"))
    vae = load_network(AUTOENCODER, context.inputs["autoencoder"].file("vae"))
    return fit_pipeline(settings, world, vae, context)


def fit_pipeline(settings: PipelineStage, world: WorldImages, vae: AutoencoderKL, context: StageContext) -> StageResult:
    """Train U-Net and text encoder on images through an autoencoder, and save them; `train_pipeline` states the rest.

    Args:
        settings: captions, sizes and length of the training.
        world: the images.
        vae: the autoencoder, which stays as it is.
        context: the context of the job.
    """
    tokenizer = build_tokenizer(settings.vocabulary)
    captions = _tokenize_captions(world, settings.prompts, tokenizer)  # (images + 1, tokens), the empty prompt last
    moments = encode_posteriors(vae, world.pixels) * vae.config.scaling_factor  # (images, 2, channels, h, w)
    with seeded_initialisation(settings.seed, "pipeline"):
        text_encoder = build_text_encoder(settings.text_encoder, tokenizer)
        unet = build_unet(settings.denoiser, settings.text_encoder.width, moments.shape[2], moments.shape[3])
    trained = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = MovingAverage(trained, settings.denoiser.ema_decay)
    scheduler = build_scheduler()
    training, seed = settings.denoiser.training, settings.seed

    def loss_at(step: int) -> Tensor:
        batch = draw_batch(seed, step, len(moments), training.batch)
        means, deviations = moments[batch].unbind(1)
        latents = means + deviations * torch.randn(means.shape, generator=generator(seed, "posterior", step))
        noise = torch.randn(means.shape, generator=generator(seed, "noise", step))
        timesteps = torch.randint(
            scheduler.config.num_train_timesteps, (len(batch),), generator=generator(seed, "timesteps", step)
        )
        dropped = torch.rand(len(batch), generator=generator(seed, "caption dropout", step))
        prompts = captions[torch.where(dropped < settings.denoiser.caption_dropout, len(captions) - 1, batch)]
        embeddings = text_encoder(prompts).last_hidden_state
        predicted = unet(scheduler.add_noise(latents, noise, timesteps), timesteps, embeddings).sample
        return (predicted - noise).square().mean()  # equation 1

    final_loss = train("pipeline", trained, training, loss_at, context, average)
    average.copy_to_module()
    with atomic_folder(context.folder / "pipeline") as folder:
        save_pipeline(folder, vae, text_encoder, tokenizer, unet, scheduler)
    facts = {
        "pipeline": "pipeline",
        "unet": "unet",
        "parts": {
            part.name: sha256_of_path(part) for part in sorted((context.folder / "pipeline").iterdir()) if part.is_dir()
        },
        "final_loss": final_loss,
        "unet_parameters": unet.num_parameters(),
        "text_encoder_parameters": text_encoder.num_parameters(),
    }
    return StageResult(files=["pipeline"], facts=facts)


def build_tokenizer(vocabulary: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer in which every word of `vocabulary` is one token; other words are split into letters.

    Raises `ConfigurationError` if a word has non-ASCII characters.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [letter + END_OF_WORD for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in _split_words(vocabulary):
        merges += _completing_merges(word, merges)
    tokens += list(dict.fromkeys(left + right for left, right in merges))
    tokens += [START_OF_TEXT, END_OF_TEXT]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=merges, model_max_length=MAX_PROMPT_TOKENS
    )


def build_text_encoder(settings: TextEncoder, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of CLIP's architecture for the tokens of `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            intermediate_size=4 * settings.width,
            projection_dim=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            max_position_embeddings=MAX_PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_unet(settings: Denoiser, text_width: int, latent_channels: int, latent_size: int) -> UNet2DConditionModel:
    """An untrained U-Net with cross-attention (`attn2`) at every level, including the middle block."""
    levels = len(settings.channels)
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.layers_per_block,
        cross_attention_dim=text_width,
        # despite the name, diffusers expects the number of heads here, not their width
        attention_head_dim=tuple(channels // settings.attention_head_width for channels in settings.channels),
        norm_num_groups=num_norm_groups(settings.channels),
    )


def build_scheduler() -> DDIMScheduler:
    """DDIM as in the benchmark's sampling (protocol, section 3), with the cosine schedule that small latents need."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        steps_offset=1,
        set_alpha_to_one=False,
        clip_sample=False,
        timestep_spacing="leading",
    )


def _split_words(vocabulary: Iterable[str]) -> list[str]:
    """Sorted lower-case words and punctuation into which CLIP's tokenizer splits the vocabulary."""
    pieces = set()
    for entry in vocabulary:
        if not entry.isascii():
            raise ConfigurationError(f"vocabulary: `{entry}` has non-ASCII characters, expected ASCII letters only.")
        pieces.update(re.findall(r"[a-z]+|[0-9]|[^a-z0-9\s]+", entry.lower()))
    return sorted(pieces)


def _completing_merges(word: str, merges: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Merges to append to `merges` so that byte-pair encoding turns `word` into one token.

    Appended merges rank below all earlier merges, so words that are already complete stay complete.
    """
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    parts = [*word[:-1], word[-1] + END_OF_WORD]
    while ranked := [pair for pair in pairwise(parts) if pair in ranks]:
        index = list(pairwise(parts)).index(min(ranked, key=ranks.__getitem__))
        parts[index : index + 2] = [parts[index] + parts[index + 1]]
    appended = []
    while len(parts) > 1:
        appended.append((parts[0], parts[1]))
        parts[:2] = [parts[0] + parts[1]]
    return appended


def _tokenize_captions(
    world: WorldImages, prompts: Mapping[str, Mapping[str, str]], tokenizer: CLIPTokenizer
) -> Tensor:
    """Token ids of the prompt of each image and, in the last row, of the empty prompt: (images + 1, tokens)."""
    known = set(tokenizer.get_vocab())
    ids: dict[tuple[str, str], list[int]] = {}
    for style, object_ in sorted(set(zip(world.styles, world.objects, strict=True))):
        prompt = prompts.get(style, {}).get(object_)
        if prompt is None:
            raise ConfigurationError(
                f"prompts: none for style `{style}` and object `{object_}`, which have images; add one."
            )
        if unknown := [piece for piece in _split_words([prompt]) if piece + END_OF_WORD not in known]:
            raise ConfigurationError(f"vocabulary: `{unknown[0]}` is missing, expected all words of prompt `{prompt}`.")
        ids[style, object_] = tokenizer(prompt, padding="max_length").input_ids
        if len(ids[style, object_]) > MAX_PROMPT_TOKENS:
            raise ConfigurationError(
                f"prompts: `{prompt}` has {len(ids[style, object_])} tokens, expected at most {MAX_PROMPT_TOKENS}."
            )
    rows = [ids[cell] for cell in zip(world.styles, world.objects, strict=True)]
    return torch.tensor([*rows, tokenizer("", padding="max_length").input_ids])
