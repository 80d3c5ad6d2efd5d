"""Alternative concepts: the anchor styles onto which each forget style may be reconditioned (Table 4).

Every scheme maps each forget style to its candidates. If a style has several, training draws among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corelib.errors import ConfigurationError
from corelib.settings.prompts import EMPTY_CONCEPT

FIRST_RETAIN = "first_retain"


def anchor_candidates(
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
        group: number of forget styles that share a base in five_to_one, and number of anchors of each in one_to_five.
        pairs: "in_order", or the explicit mapping of one_to_one.

    Raises `ConfigurationError` for an unknown scheme, or if a style would be its own anchor or has none.
    """
    if scheme == "one_to_one":
        candidates_of = _one_to_one(forget, retain, pairs)
    elif scheme == "all_to_one":
        candidates_of = {style: [retain[0] if base == FIRST_RETAIN else base] for style in forget}
    elif scheme == "five_to_one":
        candidates_of = {style: [retain[position // group % len(retain)]] for position, style in enumerate(forget)}
    elif scheme == "one_to_all":
        candidates_of = {style: list(retain) for style in forget}
    elif scheme == "one_to_five":
        candidates_of = {style: _cyclic(retain, position, group) for position, style in enumerate(forget)}
    elif scheme == "empty":
        candidates_of = {style: [EMPTY_CONCEPT] for style in forget}
    else:
        raise ConfigurationError(f"anchors: the scheme is {scheme!r}, expected one of Table 4's five, or empty.")
    for style, anchors in candidates_of.items():
        if not anchors or style in anchors:
            raise ConfigurationError(f"anchors: {scheme} gives {style} the anchors {anchors}, expected other styles.")
    return candidates_of


def _one_to_one(forget: Sequence[str], retain: Sequence[str], pairs: str | Mapping[str, str]) -> dict[str, list[str]]:
    """Section 3.1: distinct retain styles, or, if these are too few, a cyclic shift of the forget styles."""
    if not isinstance(pairs, str):
        return {style: [pairs[style]] for style in forget}
    if len(forget) <= len(retain):
        return {style: [anchor] for style, anchor in zip(forget, retain, strict=False)}
    return {style: [forget[(position + 1) % len(forget)]] for position, style in enumerate(forget)}


def _cyclic(styles: Sequence[str], start: int, count: int) -> list[str]:
    """`count` distinct styles from position `start` on, in cyclic order."""
    return [styles[(start + offset) % len(styles)] for offset in range(min(count, len(styles)))]
