"""Training data: noisy pairs made of cached latents and embeddings, each a function of an address; on the CPU."""

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
from corelib.settings.objective import CurrentModel, Target, UniformNoise
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
    """

    def __init__(
        self,
        slice_: Slice,
        latents: LatentCache,
        generated: LatentCache | None,
        embeddings: EmbeddingCache,
        prompt: Callable[[str, str], str],
        alphas_cumprod: Tensor,
    ) -> None:
        self.slice = slice_
        self.latents = latents
        self.latents.check(slice_)
        self.generated = generated
        self._embeddings = embeddings
        self._prompt = prompt
        self._alphas_cumprod = alphas_cumprod

    @classmethod
    def of_runs(cls, inputs: Mapping[str, Manifest], wording: Wording, alphas_cumprod: Tensor) -> TrainingData:
        """The training data of a task in the workflow.

        Args:
            inputs: manifests of slice, latents and embeddings, and of the latents of generated images if there are any.
            wording: wording of the captions.
            alphas_cumprod: the base model's noise schedule, (timesteps,).
        """
        slice_ = read_slice(inputs["slice"].file(SLICE))
        latents = LatentCache.of_run(inputs["latents"])
        generated = LatentCache.of_run(inputs["generated"]) if "generated" in inputs else None
        embeddings = EmbeddingCache.of_run(inputs["embeddings"])
        return cls(slice_, latents, generated, embeddings, wording.prompt, alphas_cumprod)

    @property
    def num_timesteps(self) -> int:
        """Number of timesteps of the noise schedule."""
        return len(self._alphas_cumprod)

    def noisy_pairs(
        self,
        images: list[Pair],
        prompted: list[Pair],
        address: tuple[str | int, ...],
        target: Target | None = None,
        anchors: list[str] | None = None,
        cache: LatentCache | None = None,
    ) -> NoisyPairs:
        """Noisy versions of `images` with the prompts of `prompted`.

        Args:
            images: pairs whose latents get noise; the same as `prompted` except in equation 6.
            prompted: pairs whose concepts are the pairs' own prompts.
            address: names the draws of t, noise and latents, and of what else the target noise is made of.
            target: the target noise, if it may need further draws.
            anchors: alternative styles, one for each pair.
            cache: latents of `images`; by default those of the benchmark's images.
        """
        latents = cache or self.latents
        shape = (len(images), *latents.shape)
        noise = torch.randn(shape, generator=generator(*address, "noise"))
        timesteps = torch.randint(self.num_timesteps, (len(images),), generator=generator(*address, "timesteps"))
        alpha_bar = self._alphas_cumprod[timesteps]

        def draw_noisy(posterior: str) -> Tensor:
            """x_t from one draw of the latents, named by `posterior`."""
            posterior_noise = torch.randn(shape, generator=generator(*address, posterior))
            alphas = alpha_bar.view(-1, 1, 1, 1)
            return alphas.sqrt() * latents.draw(images, posterior_noise) + (1 - alphas).sqrt() * noise

        needs_second_draw = isinstance(target, CurrentModel) and target.posterior == "own"
        return NoisyPairs(
            noisy=draw_noisy("posterior"),
            timesteps=timesteps,
            alpha_bar=alpha_bar,
            noise=noise,
            own=self.own_prompts(prompted),
            anchor=None if anchors is None else self._embed(anchors, prompted),
            uniform=_draw_uniform(target, shape, address),
            target_noisy=draw_noisy("posterior of target") if needs_second_draw else None,
        )

    def pairs_to_sample(
        self,
        prompted: list[Pair],
        address: tuple[str | int, ...],
        target: Target,
        anchors: list[str],
        timesteps: Tensor,
    ) -> NoisyPairs:
        """Pairs whose x_t a model still has to sample, from the x_T in `noisy`, with the prompts of `prompted`.

        Args:
            prompted: pairs whose concepts are the pairs' own prompts.
            address: names the draws of x_T, and of what else the target noise is made of.
            target: the target noise.
            anchors: alternative styles, one for each pair.
            timesteps: t, (len(prompted),).
        """
        shape = (len(prompted), *self.latents.shape)
        noise = torch.randn(shape, generator=generator(*address, "noise"))
        return NoisyPairs(
            noisy=noise,
            timesteps=timesteps,
            alpha_bar=self._alphas_cumprod[timesteps],
            noise=noise,
            own=self.own_prompts(prompted),
            anchor=self._embed(anchors, prompted),
            uniform=_draw_uniform(target, shape, address),
        )

    def own_prompts(self, pairs: list[Pair]) -> Tensor:
        """Embeddings of the pairs' concepts, (len(pairs), tokens, width)."""
        return self._embed([pair.style for pair in pairs], pairs)

    def empty_prompts(self, count: int) -> Tensor:
        """Embeddings of the empty prompt, (count, tokens, width)."""
        return self._embeddings.of([EMPTY_CONCEPT] * count)

    def _embed(self, styles: list[str], pairs: list[Pair]) -> Tensor:
        prompts = [self._prompt(style, pair.object) for style, pair in zip(styles, pairs, strict=True)]
        return self._embeddings.of(prompts)


def _draw_uniform(target: Target | None, shape: tuple[int, ...], address: tuple[str | int, ...]) -> Tensor | None:
    """Draws from U[0, 1), if a target noise is made of them."""
    return torch.rand(shape, generator=generator(*address, "uniform")) if isinstance(target, UniformNoise) else None
