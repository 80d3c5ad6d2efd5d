"""Concept inversion: a word is learned for each forgotten style, through the model that is to have forgotten it.

The weights of the model stay as they are; only the input changes. If such a word draws the style, the model still can.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from safetensors.torch import save_file
from torch import Tensor

from corelib.data.embeddings import EMBEDDINGS, PROMPTS, embed_texts
from corelib.data.latents import LatentCache
from corelib.errors import ConfigurationError
from corelib.files.atomic import atomic_write
from corelib.files.json_files import write_json
from corelib.models.base_model import BaseModel
from corelib.models.device import Device
from corelib.probes.fine_tuning import fine_tune, images_of_step, noisy_images
from corelib.probes.learned_words import LearnedWords
from corelib.probes.probed_model import probed_unet
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.probes import InversionStage


def invert_concepts(settings: InversionStage, context: StageContext) -> StageResult:
    """Stage: learn a word for each style by equation 1, and save the embeddings of prompts with these words.

    The result has the form of `embed_prompts`: the embedding of the usual prompt of a style and object is that of the
    same prompt with the learned word in place of the style's name.

    Raises `ConfigurationError` if two styles have the same prompt.
    """
    base, device = BaseModel(context.inputs["pipeline"]), Device(settings.precision, context.threads)
    unet = probed_unet(base, context.inputs, device)
    tokenizer, encoder = base.tokenizer(), base.text_encoder().to(device.torch_device)
    styles = list(dict.fromkeys(style for style, _ in settings.concepts))
    words = LearnedWords(tokenizer, encoder, settings.wording, styles, settings.start)
    latents, alphas_cumprod = LatentCache.of_run(context.inputs["latents"]), base.scheduler().alphas_cumprod
    images_of = {style: [image for image in settings.images if image[0] == style] for style in styles}

    def losses_at(step: int) -> Iterator[Tensor]:
        for style in styles:  # the words do not depend on each other
            address = ("inversion", settings.seed, style)
            images = images_of_step(images_of[style], step, settings.batch, (*address, "order"))
            batch = noisy_images(latents, images, alphas_cumprod, (*address, step)).to(device.torch_device)
            embedded = words.embed(style, [object_ for _, object_, _ in images])
            with device.autocast():
                predicted = unet(batch.noisy, batch.timesteps, encoder_hidden_states=embedded).sample
            yield (predicted.float() - batch.noise).square().mean()  # equation 1

    diverged_at = fine_tune(settings, words.vectors, losses_at, context)
    prompts, embeddings = [settings.negative_prompt], []
    embeddings.append(embed_texts(tokenizer, encoder, prompts, device.torch_device))
    with torch.no_grad():
        for style in styles:
            objects = [object_ for other, object_ in settings.concepts if other == style]
            prompts += [settings.wording.prompt(style, object_) for object_ in objects]
            embeddings.append(words.embed(style, objects).cpu())
    if len(set(prompts)) < len(prompts):
        repeated = next(prompt for prompt in prompts if prompts.count(prompt) > 1)
        raise ConfigurationError(f"two concepts have the prompt {repeated!r}, expected a prompt of its own for each.")
    with atomic_write(context.folder / EMBEDDINGS) as temporary:
        save_file({"embeddings": torch.cat(embeddings).contiguous()}, temporary)
    write_json(context.folder / PROMPTS, prompts)
    return StageResult([EMBEDDINGS, PROMPTS], {"prompts": len(prompts), "diverged_at": diverged_at})
