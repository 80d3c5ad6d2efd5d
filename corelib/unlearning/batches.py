"""The batches of a training run: images, noise, timesteps and anchors of each step; on the CPU."""

from __future__ import annotations

import torch

from corelib.data.shuffled_passes import items_of_step
from corelib.data.slices import Pair
from corelib.randomness import generator
from corelib.settings.objective import SampledImages
from corelib.settings.unlearning import TrainingSettings
from corelib.unlearning.objective import Batch, NoisyPairs
from corelib.unlearning.partial_sampling import draw_noise_level
from corelib.unlearning.training_data import TrainingData


class Batches:
    """The training batches of a run. Each is a function of its step, so they can be made in any order and thread.

    Args:
        settings: settings of the run.
        material: source of the noisy pairs.

    Attributes:
        steps: number of training steps.
    """

    def __init__(self, settings: TrainingSettings, material: TrainingData) -> None:
        self._settings = settings
        self._slice = material.slice
        self._material = material
        self._num_pairs = settings.pairs_per_step
        self.steps = settings.num_steps(len(self._slice.forget))

    def at(self, step: int) -> Batch:
        """The batch of a step: forget pairs, and as many retain pairs if the objective has a retain term."""
        pairs = items_of_step(self._slice.forget, step, self._num_pairs, self._address("forget order"))
        anchors = self._anchors(pairs, step)
        term, address = self._settings.objective.unlearn, self._address("forget", step)
        if isinstance(term.images, SampledImages):
            level, timesteps = draw_noise_level(term.images, self._material.num_timesteps, len(pairs), address)
            forget = self._material.pairs_to_sample(pairs, address, term.target, anchors, timesteps)
            return Batch(forget, self._retain_pairs(step), level)
        return Batch(self._forget_pairs(pairs, anchors, address), self._retain_pairs(step))

    def _retain_pairs(self, step: int) -> NoisyPairs | None:
        term = self._settings.objective.retain
        if term is None:
            return None
        pairs = items_of_step(self._slice.retain, step, self._num_pairs, self._address("retain order"))
        return self._material.noisy_pairs(pairs, pairs, self._address("retain", step), term.target)

    def _forget_pairs(self, pairs: list[Pair], anchors: list[str], address: tuple[str | int, ...]) -> NoisyPairs:
        term, images = self._settings.objective.unlearn, pairs
        if term.shows_anchor:  # equation 6
            images = [Pair(anchor, pair.object, pair.index) for anchor, pair in zip(anchors, pairs, strict=True)]
        cache = self._material.latents
        if term.images == "generated":
            assert self._material.generated is not None, "an objective on generated images needs their latents"
            cache = self._material.generated
        return self._material.noisy_pairs(images, pairs, address, term.target, anchors, cache)

    def _anchors(self, pairs: list[Pair], step: int) -> list[str]:
        """The anchor style of each forget pair, drawn among its candidates."""
        draws = torch.rand(len(pairs), generator=generator(*self._address("anchors", step)), dtype=torch.float64)
        if self._settings.draw == "step":
            draws = draws[:1].expand(len(pairs))
        candidates = [self._settings.candidates[pair.style] for pair in pairs]
        return [styles[int(draw * len(styles))] for styles, draw in zip(candidates, draws.tolist(), strict=True)]

    def _address(self, *parts: str | int) -> tuple[str | int, ...]:
        return ("unlearning", self._settings.seed, *parts)
