"""Closed-form edits: independent solutions of the same least-squares problems, and what the edits leave unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_world import IN_TRAINING, OBJECTS, finish, make_small_world
from torch import Tensor

from corelib.data.embeddings import EmbeddingCache
from corelib.models.base_model import BaseModel
from corelib.models.delta import DELTA_FILE, load_delta
from corelib.models.trained_parameters import trained_parameters
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.edits import AdversarialRounds, Edit, EditStage
from corelib.unlearning.closed_form import (
    Concepts,
    adversarial_embeddings,
    concepts_of,
    edit_matrix,
    edit_model,
    edited_weights,
)

WIDTH, CAPTIONS = 7, 2
UCE = Edit(erase_weight=1.5, preserve_weight=0.3, ridge=0.2, adversarial=None)


def rece(count: int, ridge: float = 0.1) -> Edit:
    return UCE.model_copy(update={"adversarial": AdversarialRounds(count=count, ridge=ridge)})


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONCEPTS = Concepts(
    sources=random(6, WIDTH), targets=random(6, WIDTH, seed=1), preserved=random(9, WIDTH, seed=2), captions=CAPTIONS
)
WEIGHTS = {"a": random(5, WIDTH, seed=3), "b": random(11, WIDTH, seed=4)}


def stacked_least_squares(weight: Tensor, sources: Tensor) -> Tensor:
    """The edit of one projection, (out, width), as the solution of one long system of equations."""
    erase, preserve = (UCE.erase_weight / CAPTIONS) ** 0.5, (UCE.preserve_weight / CAPTIONS) ** 0.5
    ridge = UCE.ridge**0.5
    left = [erase * sources, preserve * CONCEPTS.preserved, ridge * torch.eye(WIDTH, dtype=torch.float64)]
    right = [erase * CONCEPTS.targets @ weight.T, preserve * CONCEPTS.preserved @ weight.T, ridge * weight.T]
    return torch.linalg.lstsq(torch.cat(left), torch.cat(right)).solution.T


def test_uce_is_the_solution_of_the_stacked_least_squares_problem_of_each_projection():
    edited = edited_weights(WEIGHTS, CONCEPTS, UCE)
    for name, weight in WEIGHTS.items():
        assert torch.allclose(edited[name], stacked_least_squares(weight, CONCEPTS.sources), atol=1e-10)


def test_uce_is_where_gradient_descent_on_its_loss_ends():
    weight = WEIGHTS["a"]
    edited = weight.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([edited], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss() -> Tensor:
        optimizer.zero_grad()
        erased = (CONCEPTS.sources @ edited.T - CONCEPTS.targets @ weight.T).square().sum()
        preserved = (CONCEPTS.preserved @ (edited - weight).T).square().sum()
        total: Tensor = (UCE.erase_weight * erased + UCE.preserve_weight * preserved) / CAPTIONS
        total = total + UCE.ridge * (edited - weight).square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    assert torch.allclose(edited.detach(), edited_weights(WEIGHTS, CONCEPTS, UCE)["a"], atol=1e-5)


def test_a_round_of_rece_erases_the_solutions_of_the_stacked_problem_of_the_embeddings():
    """The embedding is that of all projections together; the next edit starts from the edited weights."""
    ridge, first = 0.1, edited_weights(WEIGHTS, CONCEPTS, UCE)
    left = torch.cat([*first.values(), ridge**0.5 * torch.eye(WIDTH, dtype=torch.float64)])
    keys_and_values = torch.cat([CONCEPTS.sources @ weight.T for weight in WEIGHTS.values()], dim=1)
    right = torch.cat([keys_and_values, torch.zeros(6, WIDTH, dtype=torch.float64)], dim=1).T
    derived = torch.linalg.lstsq(left, right).solution.T  # (6, WIDTH)
    edited = edited_weights(WEIGHTS, CONCEPTS, rece(1, ridge))
    for name in WEIGHTS:
        assert torch.allclose(edited[name], stacked_least_squares(first[name], derived), atol=1e-9)


def test_without_an_edit_the_derived_embeddings_are_the_sources():
    gram = sum((weight.T @ weight for weight in WEIGHTS.values()), torch.zeros(WIDTH, WIDTH, dtype=torch.float64))
    derived = adversarial_embeddings(CONCEPTS.sources, gram, torch.eye(WIDTH, dtype=torch.float64), 1e-12)
    assert torch.allclose(derived, CONCEPTS.sources, atol=1e-8)


def permuted(order: list[int]) -> Concepts:
    return Concepts(CONCEPTS.sources[order], CONCEPTS.targets[order], CONCEPTS.preserved.flip(0), CAPTIONS)


@pytest.mark.parametrize("edit", [UCE, rece(3)], ids=["uce", "rece"])
def test_the_order_of_the_concepts_does_not_matter(edit: Edit):
    expected = edited_weights(WEIGHTS, CONCEPTS, edit)
    found = edited_weights(WEIGHTS, permuted([3, 0, 5, 1, 4, 2]), edit)
    assert all(torch.allclose(found[name], expected[name], atol=1e-9) for name in WEIGHTS)


@pytest.mark.parametrize("edit", [UCE, rece(3)], ids=["uce", "rece"])
def test_anchors_that_are_the_concepts_themselves_change_nothing(edit: Edit):
    same = Concepts(CONCEPTS.sources, CONCEPTS.sources, CONCEPTS.preserved, CAPTIONS)
    if edit.adversarial is None:
        assert torch.allclose(edit_matrix(same.sources, same, edit), torch.eye(WIDTH, dtype=torch.float64), atol=1e-12)
    edited = edited_weights(WEIGHTS, same, edit.model_copy(update={"adversarial": None}))
    assert all(torch.allclose(edited[name], WEIGHTS[name], atol=1e-12) for name in WEIGHTS)


def settings_for(edit: Edit, **changes: Any) -> EditStage:
    leaves: dict[str, Any] = {
        "edit": edit,
        "candidates": {"Amber": ["Blue"]},
        "retain": ["Blue", "Cream"],
        "objects": OBJECTS,
        "wording": IN_TRAINING,
    }
    return EditStage(**(leaves | changes))


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifest]:
    return make_small_world(tmp_path_factory.mktemp("world"))


def edited_in(folder: Path, world: dict[str, Manifest], settings: EditStage) -> Manifest:
    folder.mkdir()
    return finish(folder, "edits", edit_model(settings, StageContext(folder, "digest", world)))


@pytest.mark.parametrize("edit", [UCE, rece(2)], ids=["uce", "rece"])
def test_the_stage_moves_forgotten_styles_to_their_anchors_and_retained_ones_less(
    edit: Edit, small_world: dict[str, Manifest], tmp_path: Path
):
    made = edited_in(tmp_path / "edit", small_world, settings_for(edit))
    base = BaseModel(small_world["pipeline"])
    before, after = base.unet(), base.unet()
    load_delta(made.file(DELTA_FILE), after, base.unet_sha256)
    cache = EmbeddingCache.of_run(small_world["embeddings"])
    weights = [trained_parameters(unet, "keys_and_values") for unet in (before, after)]
    amber, blue, cream = (cache.of([IN_TRAINING.prompt(style, "Cats")])[0] for style in ("Amber", "Blue", "Cream"))

    def distance(first: Tensor, second: Tensor) -> float:
        """The distance between the keys and values of one embedding after and another before the edit."""
        pairs = [(weights[1][name] @ first.T, weights[0][name] @ second.T) for name in weights[0]]
        return float(sum((one - other).square().sum() for one, other in pairs))

    with torch.no_grad():
        assert distance(amber, blue) < 0.5 * distance(amber, amber)
        assert distance(blue, blue) < 0.5 * distance(amber, amber)
        assert distance(cream, cream) < 0.5 * distance(amber, amber)
    unchanged = set(dict(before.named_parameters())) - set(weights[0])
    one, other = dict(before.named_parameters()), dict(after.named_parameters())
    assert all(torch.equal(one[name], other[name]) for name in unchanged)


def test_the_target_of_several_anchors_is_their_mean(small_world: dict[str, Manifest]):
    cache = EmbeddingCache.of_run(small_world["embeddings"])
    several, blue, cream = (
        concepts_of(settings_for(UCE, candidates={"Amber": anchors}), cache).targets
        for anchors in (["Blue", "Cream"], ["Blue"], ["Cream"])
    )
    assert torch.allclose(several, (blue + cream) / 2)


def test_equal_settings_make_equal_files(small_world: dict[str, Manifest], tmp_path: Path):
    first, second = (edited_in(tmp_path / name, small_world, settings_for(rece(2))) for name in ("a", "b"))
    assert first.files == second.files
