"""Prompts that draw a forgotten style, learned through the model that is to have forgotten it.

The weights of the model stay as they are; only the prompt changes. If such a prompt draws the style, the model still
can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from corelib.data.embeddings import EMBEDDINGS, PROMPTS, embed_texts
from corelib.data.latents import LatentCache
from corelib.data.shuffled_passes import items_of_step
from corelib.errors import ConfigurationError
from corelib.files.atomic import atomic_write
from corelib.files.json_files import write_json
from corelib.models.base_model import BaseModel
from corelib.models.device import Device
from corelib.probes.fine_tuning import fine_tune, noisy_images
from corelib.probes.learned_prompts import LearnedPrefixes, LearnedPrompts, LearnedWords
from corelib.probes.probed_model import probed_unet
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.probes import InversionStage, PrefixStage, PromptLearning


def invert_concepts(settings: InversionStage, context: StageContext) -> StageResult:
    """Stage: learn a word for each style by equation 1, and save the embeddings of prompts with these words.

    Raises as `_learn` does, and `ConfigurationError` if a prompt does not name its style.
    """

    def words(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, styles: Sequence[str]) -> LearnedPrompts:
        return LearnedWords(tokenizer, encoder, settings.wording, styles, settings.start)

    return _learn(settings, context, words)


def find_prefixes(settings: PrefixStage, context: StageContext) -> StageResult:
    """Stage: find words of the vocabulary for each style by equation 1, and save the embeddings of prompts with them.

    The result states the words. Raises as `_learn` does.
    """
    found: list[LearnedPrefixes] = []

    def prefixes(tokenizer: CLIPTokenizer, encoder: CLIPTextModel, styles: Sequence[str]) -> LearnedPrompts:
        found.append(LearnedPrefixes(tokenizer, encoder, settings.wording, styles, settings.tokens, settings.seed))
        return found[0]

    result = _learn(settings, context, prefixes)
    return StageResult(result.files, {**result.facts, "prefixes": found[0].texts()})


def _learn(
    settings: PromptLearning,
    context: StageContext,
    prompts_of: Callable[[CLIPTokenizer, CLIPTextModel, Sequence[str]], LearnedPrompts],
) -> StageResult:
    """Learn the prompts of each style by equation 1, and save their embeddings in the form of `embed_prompts`.

    The embedding of the usual prompt of a style and object is that of the learned one.

    Raises `ConfigurationError` if two concepts have the same prompt, and `AssetError` if a prompt is too long.
    """
    base, device = BaseModel(context.inputs["pipeline"]), Device(settings.precision, context.threads)
    unet = probed_unet(base, context.inputs, device)
    tokenizer, encoder = base.tokenizer(), base.text_encoder().to(device.torch_device)
    styles = list(dict.fromkeys(style for style, _ in settings.concepts))
    prompts = prompts_of(tokenizer, encoder, styles)
    latents, alphas_cumprod = LatentCache.of_run(context.inputs["latents"]), base.scheduler().alphas_cumprod
    images_of = {style: [image for image in settings.images if image[0] == style] for style in styles}

    def losses_at(step: int) -> Iterator[Tensor]:
        for style in styles:  # the prompts of styles do not depend on each other
            address = ("inversion", settings.seed, style)
            images = items_of_step(images_of[style], step, settings.batch, (*address, "order"))
            batch = noisy_images(latents, images, alphas_cumprod, (*address, step)).to(device.torch_device)
            embedded = prompts.embed(style, [object_ for _, object_, _ in images])
            with device.autocast():
                predicted = unet(batch.noisy, batch.timesteps, encoder_hidden_states=embedded).sample
            yield (predicted.float() - batch.noise).square().mean()  # equation 1

    diverged_at = fine_tune(settings, prompts.learned, losses_at, context)
    texts, embeddings = [settings.negative_prompt], []
    embeddings.append(embed_texts(tokenizer, encoder, texts, device.torch_device))
    with torch.no_grad():
        for style in styles:
            objects = [object_ for other, object_ in settings.concepts if other == style]
            texts += [settings.wording.prompt(style, object_) for object_ in objects]
            embeddings.append(prompts.embed(style, objects).cpu())
    if len(set(texts)) < len(texts):
        repeated = next(text for text in texts if texts.count(text) > 1)
        raise ConfigurationError(f"two concepts have the prompt {repeated!r}, expected a prompt of its own for each.")
    with atomic_write(context.folder / EMBEDDINGS) as temporary:
        save_file({"embeddings": torch.cat(embeddings).contiguous()}, temporary)
    write_json(context.folder / PROMPTS, texts)
    return StageResult([EMBEDDINGS, PROMPTS], {"prompts": len(texts), "diverged_at": diverged_at})
