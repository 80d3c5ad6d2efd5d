"""Endless shuffled passes over the images of a training."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corelib.data.shuffled_passes import items_of_step

ITEMS = list("abcdefghijk")


@given(count=st.integers(min_value=1, max_value=25))
def test_every_pass_has_each_item_once(count: int) -> None:
    items = [item for step in range(3 * len(ITEMS)) for item in items_of_step(ITEMS, step, count, ("order",))]
    passes = [items[start : start + len(ITEMS)] for start in range(0, len(items), len(ITEMS))]
    assert len(passes) == 3 * count
    assert all(sorted(one) == ITEMS for one in passes)
    assert passes[0] != passes[1]


@given(count=st.integers(min_value=1, max_value=25), step=st.integers(min_value=0, max_value=40))
def test_a_step_does_not_depend_on_the_steps_before_it(count: int, step: int) -> None:
    first_steps = [
        item for one in range(count * step, count * (step + 1)) for item in items_of_step(ITEMS, one, 1, ("o",))
    ]
    assert items_of_step(ITEMS, step, count, ("o",)) == first_steps


def test_another_address_is_another_order() -> None:
    assert items_of_step(ITEMS, 0, 11, ("order", 0)) != items_of_step(ITEMS, 0, 11, ("order", 1))
