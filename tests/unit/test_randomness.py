"""Streams of random numbers: how a seed selects one, and that related draws never share one."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from support.checkout import REPOSITORY
from support.small_world import make_small_world, unlearning_settings

from corelib.data import shuffled_passes
from corelib.models.base_model import BaseModel
from corelib.randomness import generator, seed_of
from corelib.study.loading import load_study
from corelib.study.plan import Plan
from corelib.study.published import load_published
from corelib.unlearning import batches, training_data
from corelib.unlearning.batches import Batches
from corelib.unlearning.training_data import TrainingData

CONFIGURATION = REPOSITORY / "config"
STREAMS = 2**32
"""Number of streams of torch's CPU generator, which uses the lowest 32 bits of a seed."""

Address = tuple[str | int, ...]


def stream_of(address: Address) -> int:
    return seed_of(*address) % STREAMS


def test_a_seed_has_63_bits_and_the_lowest_32_select_the_stream() -> None:
    seeds = [seed_of("a", number) for number in range(2000)]
    assert 2**62 < max(seeds) < 2**63
    first = torch.randn(5, generator=torch.Generator().manual_seed(seeds[0]))
    same = torch.Generator().manual_seed((seeds[0] + 5 * STREAMS) % 2**63)
    other = torch.Generator().manual_seed(seeds[0] ^ 1)
    assert torch.equal(first, torch.randn(5, generator=same))
    assert not torch.equal(first, torch.randn(5, generator=other))


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, Address]]:
    """Every address from which the training steps of the paper's longest run draw, with the step."""
    recorded: list[Address] = []

    def record_address(*address: str | int) -> torch.Generator:
        recorded.append(address)
        return generator(*address)

    small_world = make_small_world(tmp_path_factory.mktemp("material"))
    paper = load_study("paper", CONFIGURATION)
    alphas = BaseModel(small_world["pipeline"]).scheduler().alphas_cumprod
    of_any_objective = [unlearning_settings(paper.methods[name].objective) for name in ("salun_released", "ediff")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "generator", record_address)
        patch.setattr(shuffled_passes, "generator", record_address)
        patch.setattr(training_data, "generator", record_address)
        for settings in of_any_objective:
            shuffled_passes._order.cache_clear()
            Batches(settings, TrainingData.of_runs(small_world, settings.wording, alphas)).at(7)
    of_a_step = list(dict.fromkeys(address for address in recorded if 7 in address))
    assert len(of_a_step) == 9, "two draws of the posterior, noise, t, uniform noise, anchors; three of retain pairs"
    plan = Plan("paper", paper, load_published(CONFIGURATION))
    runs = [run for product in plan.products().values() for run in product.with_all_inputs().values()]
    steps = max(run.settings.num_steps(1500) for run in runs if run.stage == "unlearning")
    return [
        (step, tuple(step if part == 7 else part for part in address)) for step in range(steps) for address in of_a_step
    ]


def test_no_two_images_of_the_paper_share_their_noise() -> None:
    grid = Plan("paper", load_study("paper", CONFIGURATION), load_published(CONFIGURATION)).grid_of_all_tasks()
    assert len(grid) == 1140
    assert len({stream_of(("image", seed, style, object_)) for style, object_, seed in grid}) == len(grid)


def test_no_two_draws_of_nearby_training_steps_share_a_stream(addresses: list[tuple[int, Address]]) -> None:
    """Some distant steps share one, as is likely with 2^32 streams; the docstring of `seed_of` has these numbers."""
    steps: defaultdict[int, list[int]] = defaultdict(list)
    for step, address in addresses:
        steps[stream_of(address)].append(step)
    shared = [found for found in steps.values() if len(found) > 1]
    expected = len(addresses) ** 2 / 2 / STREAMS
    assert len(addresses) == 337_500
    assert len(shared) == 12 == pytest.approx(expected, abs=4 * expected**0.5)
    assert min(max(found) - min(found) for found in shared) == 1_660
