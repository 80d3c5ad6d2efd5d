"""Training data: noisy pairs made of cached latents and embeddings, each a function of an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.data.latents import LatentCache
from corelib.data.slices import SLICE as SLICE
from corelib.data.slices import Pair, Slice, read_slice
from corelib.randomness import generator
from corelib.runs.manifest import Manifest
from corelib.settings.prompts import EMPTY_CONCEPT, Wording
from corelib.unlearning.objective import NoisyPairs


class TrainingData:
    """Training data of a task, from which noisy pairs are made.

    Args:
        slice_: the forget and the retain pairs.
        latents: latents of the images.
        generated: latents of generated images, if there are any.
        embeddings: embeddings of all prompts, with the empty prompt.
        prompt: the prompt of a style and an object.
        alphas_cumprod: the base model's noise schedule, (timesteps,).
        device: device of the pairs.
    """

    def __init__(
        self,
        slice_: Slice,
        latents: LatentCache,
        generated: LatentCache | None,
        embeddings: EmbeddingCache,
        prompt: Callable[[str, str], str],
        alphas_cumprod: Tensor,
        device: torch.device,
    ) -> None:
        self.slice = slice_
        self.latents = latents
        self.latents.check(slice_)
        self.generated = generated
        self._embeddings = embeddings
        self._prompt = prompt
        self._alphas_cumprod = alphas_cumprod
        self._device = device

    @classmethod
    def of_runs(
        cls, inputs: Mapping[str, Manifest], wording: Wording, alphas_cumprod: Tensor, device: torch.device
    ) -> TrainingData:
        """The training data of a task in the workflow.

        Args:
            inputs: manifests of slice, latents and embeddings, and of the latents of generated images if there are any.
            wording: wording of the captions.
            alphas_cumprod: the base model's noise schedule, (timesteps,).
            device: device of the pairs.
        """
        slice_ = read_slice(inputs["slice"].file(SLICE))
        latents = LatentCache.of_run(inputs["latents"])
        generated = LatentCache.of_run(inputs["generated"]) if "generated" in inputs else None
        embeddings = EmbeddingCache.of_run(inputs["embeddings"])
        return cls(slice_, latents, generated, embeddings, wording.prompt, alphas_cumprod, device)

    def noisy_pairs(
        self,
        images: list[Pair],
        prompted: list[Pair],
        address: tuple[str | int, ...],
        anchors: list[str] | None = None,
        cache: LatentCache | None = None,
    ) -> NoisyPairs:
        """Noisy versions of `images` with the prompts of `prompted`.

        Args:
            images: pairs whose latents get noise; the same as `prompted` except in equation 6.
            prompted: pairs whose concepts are the pairs' own prompts.
            address: names the draws of t, noise and latents; with anchors, latents are drawn twice.
            anchors: alternative styles, one for each pair.
            cache: latents of `images`; by default those of the benchmark's images.
        """
        latents = cache or self.latents
        shape = (len(images), *latents.shape)
        noise = torch.randn(shape, generator=generator(*address, "noise"))
        num_timesteps = len(self._alphas_cumprod)
        timesteps = torch.randint(num_timesteps, (len(images),), generator=generator(*address, "timesteps"))
        alpha_bar = self._alphas_cumprod[timesteps]

        def draw_noisy(posterior: str) -> Tensor:
            """x_t from one draw of the latents, named by `posterior`."""
            posterior_noise = torch.randn(shape, generator=generator(*address, posterior))
            alphas = alpha_bar.view(-1, 1, 1, 1)
            noisy = alphas.sqrt() * latents.draw(images, posterior_noise) + (1 - alphas).sqrt() * noise
            return noisy.to(self._device)

        uniform = None
        if anchors is not None:
            uniform = torch.rand(shape, generator=generator(*address, "uniform")).to(self._device)
        return NoisyPairs(
            noisy=draw_noisy("posterior"),
            timesteps=timesteps.to(self._device),
            alpha_bar=alpha_bar.to(self._device),
            noise=noise.to(self._device),
            own=self.own_prompts(prompted),
            anchor=None if anchors is None else self._embed(anchors, prompted),
            uniform=uniform,
            target_noisy=None if anchors is None else draw_noisy("posterior of target"),
        )

    def sampled_pairs(
        self,
        prompted: list[Pair],
        address: tuple[str | int, ...],
        anchors: list[str],
        sample: Callable[[Tensor, Tensor, tuple[str | int, ...]], tuple[Tensor, Tensor]],
    ) -> NoisyPairs:
        """Noisy images that a model samples itself, with the prompts of `prompted`.

        Args:
            prompted: pairs whose concepts are the pairs' own prompts.
            address: names all draws.
            anchors: alternative styles, one for each pair.
            sample: returns x_t and t for pure noise, the pairs' own prompts and an address.
        """
        shape = (len(prompted), *self.latents.shape)
        noise = torch.randn(shape, generator=generator(*address, "noise")).to(self._device)
        own = self.own_prompts(prompted)
        noisy, timesteps = sample(noise, own, address)
        alpha_bar = self._alphas_cumprod[timesteps.cpu()].to(self._device)
        uniform = torch.rand(shape, generator=generator(*address, "uniform")).to(self._device)
        return NoisyPairs(noisy, timesteps, alpha_bar, noise, own, self._embed(anchors, prompted), uniform)

    def own_prompts(self, pairs: list[Pair]) -> Tensor:
        """Embeddings of the pairs' concepts, (len(pairs), tokens, width)."""
        return self._embed([pair.style for pair in pairs], pairs)

    def empty_prompts(self, count: int) -> Tensor:
        """Embeddings of the empty prompt, (count, tokens, width)."""
        return self._embeddings.of([EMPTY_CONCEPT] * count).to(self._device)

    def _embed(self, styles: list[str], pairs: list[Pair]) -> Tensor:
        prompts = [self._prompt(style, pair.object) for style, pair in zip(styles, pairs, strict=True)]
        return self._embeddings.of(prompts).to(self._device)
