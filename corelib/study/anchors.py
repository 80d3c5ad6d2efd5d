"""Alternative concepts: which anchor styles each forget style may be reconditioned onto (Table 4).

Every scheme is a mapping from forget style to its candidates; where there is more than one, training draws among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corelib.errors import ConfigurationError
from corelib.settings.prompts import EMPTY_CONCEPT

FIRST_RETAIN = "first_retain"


def candidates(
    scheme: str,
    forget: Sequence[str],
    retain: Sequence[str],
    base: str,
    group: int,
    pairs: str | Mapping[str, str],
) -> dict[str, list[str]]:
    """The candidate anchors of each forget style.

    Args:
        scheme: one_to_one, all_to_one, five_to_one, one_to_all or one_to_five; or empty, the empty prompt for all.
        forget: forget styles in their order.
        retain: retain styles in label order, without the photos.
        base: the base of all_to_one: "first_retain", a style, or "" for the empty prompt.
        group: how many forget styles share a base in five_to_one, and how many anchors one has in one_to_five.
        pairs: "in_order", or the explicit mapping of one_to_one.

    Raises `ConfigurationError` if a style would be its own anchor or has none.
    """
    if scheme == "one_to_one":
        found = _one_to_one(forget, retain, pairs)
    elif scheme == "all_to_one":
        found = {style: [retain[0] if base == FIRST_RETAIN else base] for style in forget}
    elif scheme == "five_to_one":
        found = {style: [retain[position // group % len(retain)]] for position, style in enumerate(forget)}
    elif scheme == "one_to_all":
        found = {style: list(retain) for style in forget}
    elif scheme == "one_to_five":
        found = {style: _cyclic(retain, position, group) for position, style in enumerate(forget)}
    elif scheme == "empty":
        found = {style: [EMPTY_CONCEPT] for style in forget}
    else:
        raise ConfigurationError(f"anchors: the scheme is {scheme!r}, expected one of Table 4's five, or empty.")
    for style, anchors in found.items():
        if not anchors or style in anchors:
            raise ConfigurationError(f"anchors: {scheme} gives {style} the anchors {anchors}, expected other styles.")
    return found


def _one_to_one(forget: Sequence[str], retain: Sequence[str], pairs: str | Mapping[str, str]) -> dict[str, list[str]]:
    """Section 3.1: distinct retain styles, or, where these are too few, a cyclic shift among the forget styles."""
    if not isinstance(pairs, str):
        return {style: [pairs[style]] for style in forget}
    if len(forget) <= len(retain):
        return {style: [anchor] for style, anchor in zip(forget, retain, strict=False)}
    return {style: [forget[(position + 1) % len(forget)]] for position, style in enumerate(forget)}


def _cyclic(styles: Sequence[str], start: int, count: int) -> list[str]:
    """`count` distinct styles from position `start` on, going round."""
    return [styles[(start + offset) % len(styles)] for offset in range(min(count, len(styles)))]
