"""The order in which training takes its images: endless passes, each shuffled anew."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeVar

import torch

from corelib.randomness import generator

Item = TypeVar("Item")


def items_of_step(items: Sequence[Item], step: int, count: int, address: tuple[str | int, ...]) -> list[Item]:
    """The `count` items of a training step in endless passes over `items`; every pass is shuffled anew.

    A function of its arguments alone, so that an interrupted training resumes with the same items.
    """
    chosen = []
    for position in range(step * count, (step + 1) * count):
        epoch, offset = divmod(position, len(items))
        chosen.append(items[_order(len(items), (*address, epoch))[offset]])
    return chosen


@functools.lru_cache(maxsize=8)
def _order(count: int, address: tuple[str | int, ...]) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator(*address)).tolist()
    return order
