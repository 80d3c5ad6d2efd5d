"""Closed-form edits of the cross-attention: UCE (Gandikota et al., WACV 2024) and RECE (Gong et al., ECCV 2024).

The keys and values of a cross-attention layer are linear in the text embedding, k = W c, so the weights that map the
embeddings of a concept to the keys and values of another one solve a least-squares problem.

| symbol | here |
| --- | --- |
| W (the weights of a key or value projection) | `weights`, (out, width) |
| c_i, an embedding of a concept to erase | `sources`, (embeddings, width) |
| c*_i, the embedding of its anchor at the same position | `targets`, (embeddings, width) |
| c_j, an embedding to preserve | `preserved`, (embeddings, width) |
| lambda | `edit.ridge` |

UCE's equation 7 minimises, for each W,

    sum_i a ||W' c_i - W c*_i||^2 + sum_j b ||W' c_j - W c_j||^2 + lambda ||W' - W||^2.

With A = lambda I + a sum_i c_i c_i^T + b sum_j c_j c_j^T and M = a sum_i (c*_i - c_i) c_i^T, its solution is
W' = W (I + M A^-1): the same matrix for every projection, which is all that this module computes.

RECE continues. The embedding c' that the edited projections map to the keys and values of c in the unedited ones is the
ridge regression c' = (sum W'^T W' + r I)^-1 (sum W'^T W) c, over all projections. The next round erases these
embeddings from the edited weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.errors import ArtefactError
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, Delta
from corelib.models.device import set_reproducible
from corelib.models.trained_parameters import trained_parameters
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.edits import Edit, EditStage
from corelib.settings.prompts import EMPTY_CONCEPT
from corelib.unlearning.starting_model import starting_unet

log = logging.getLogger(__name__)

EDITED: Literal["keys_and_values"] = "keys_and_values"
"""The tensors that an edit changes."""


@dataclass(frozen=True)
class Concepts:
    """The embeddings of an edit, in fp64.

    A concept is a style with all its captions. The weight of each embedding is one over the number of captions, so a
    concept counts the same with few or many of them.

    Attributes:
        sources: embeddings of the forget styles, (n, width).
        targets: embeddings of their anchors at the same positions, (n, width); means over several anchors.
        preserved: embeddings that keep their keys and values, (m, width).
        captions: number of captions of each concept.
    """

    sources: Tensor
    targets: Tensor
    preserved: Tensor
    captions: int


def edit_model(settings: EditStage, context: StageContext) -> StageResult:
    """Stage: compute the edited keys and values, in fp64 on the CPU, and write them as a delta of the base model.

    The edit changes the weights that the task before has left, if there is one.
    Raises `ArtefactError` if the edited weights are not finite.
    """
    set_reproducible(context.threads)
    base = BaseModel(context.inputs["pipeline"])
    unet = starting_unet(base, context.inputs)
    weights = {name: parameter.detach().double() for name, parameter in trained_parameters(unet, EDITED).items()}
    concepts = concepts_of(settings, EmbeddingCache.of_run(context.inputs["embeddings"]))
    edited = edited_weights(weights, concepts, settings.edit)
    if any(not tensor.isfinite().all() for tensor in edited.values()):
        raise ArtefactError("the edited weights are not finite; increase `ridge`, which conditions their equation.")
    Delta(edited, EDITED, base.unet_sha256, context.digest).save(context.folder / DELTA_FILE)
    change = _sum([(edited[name] - weights[name]).square().sum() for name in weights])
    norm = _sum([tensor.square().sum() for tensor in weights.values()])
    log.info("the edit changes the keys and values by %.1f %% of their norm", 100 * float((change / norm).sqrt()))
    return StageResult([DELTA_FILE], {"base": base.unet_sha256, "diverged_at": None})


def concepts_of(settings: EditStage, embeddings: EmbeddingCache) -> Concepts:
    """The embeddings of the captions of an edit: of every object, and of all tokens, padding included."""

    def of_style(style: str) -> Tensor:
        prompts = [settings.wording.prompt(style, object_) for object_ in settings.objects]
        return embeddings.of(prompts).double()  # (objects, tokens, width)

    sources = [of_style(style) for style in settings.candidates]
    targets = [
        torch.stack([of_style(anchor) for anchor in anchors]).mean(0) for anchors in settings.candidates.values()
    ]
    preserved = [of_style(style) for style in [*settings.retain, EMPTY_CONCEPT]]
    return Concepts(
        sources=torch.cat(sources).flatten(0, 1),
        targets=torch.cat(targets).flatten(0, 1),
        preserved=torch.cat(preserved).flatten(0, 1),
        captions=len(settings.objects),
    )


def edited_weights(weights: Mapping[str, Tensor], concepts: Concepts, edit: Edit) -> dict[str, Tensor]:
    """The edited projections by name, (out, width) each, in fp64.

    Args:
        weights: the projections before the edit by name, in fp64.
        concepts: the embeddings to erase and to preserve.
        edit: the constants of the equation.
    """
    gram = _sum([tensor.T @ tensor for tensor in weights.values()])  # (width, width)
    total = edit_matrix(concepts.sources, concepts, edit)
    for _ in range(0 if edit.adversarial is None else edit.adversarial.count):
        assert edit.adversarial is not None
        derived = adversarial_embeddings(concepts.sources, gram, total, edit.adversarial.ridge)
        total = total @ edit_matrix(derived, concepts, edit)
    return {name: tensor @ total for name, tensor in weights.items()}


def edit_matrix(sources: Tensor, concepts: Concepts, edit: Edit) -> Tensor:
    """The matrix (width, width) by which an edit multiplies every projection from the right.

    Args:
        sources: the embeddings to erase, (n, width), in the order of `concepts.targets`.
        concepts: the embeddings of their anchors, and those to preserve.
        edit: the constants of the equation.
    """
    identity = torch.eye(sources.shape[1], dtype=torch.float64)
    erase, preserve = edit.erase_weight / concepts.captions, edit.preserve_weight / concepts.captions
    normal = edit.ridge * identity + erase * sources.T @ sources + preserve * concepts.preserved.T @ concepts.preserved
    moved = erase * (concepts.targets - sources).T @ sources
    return identity + torch.linalg.solve(normal, moved.T).T  # M A^-1, since A is symmetric


def adversarial_embeddings(sources: Tensor, gram: Tensor, edit: Tensor, ridge: float) -> Tensor:
    """The embeddings (n, width) that the edited projections map to the keys and values of `sources` in the base model.

    Args:
        sources: embeddings of the forget styles, (n, width).
        gram: the sum of W^T W over the projections of the base model, (width, width).
        edit: the matrix by which the edits so far have multiplied every projection.
        ridge: weight of the squared norm of an embedding.
    """
    identity = torch.eye(len(gram), dtype=torch.float64)
    return torch.linalg.solve(edit.T @ gram @ edit + ridge * identity, edit.T @ gram @ sources.T).T


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(0)
