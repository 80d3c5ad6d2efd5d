"""Figures: titles in any alphabet, and equal files for equal images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from corelib.reports.figures import BACKGROUND_COLOUR, image_grid

WHITE = Image.new("RGB", (32, 32), BACKGROUND_COLOUR)


def ink(title: str) -> bytes:
    """The pixels of a title, in a figure of one white image."""
    picture = image_grid([[WHITE]], [title], [" "], 64)
    pixels = np.asarray(picture.convert("L"))
    rows, columns = np.nonzero(pixels < 200)
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].tobytes() if len(rows) else b""


@pytest.mark.parametrize("letter", list("äöüßÅéñøłčşğ→ωαβΔяЖאع±×–’"))
def test_every_letter_is_drawn(letter: str) -> None:
    missing = ink("\ufffe")
    assert ink(letter) not in (b"", missing)


def test_letters_look_different() -> None:
    letters = "aäàåoöeéuü"
    assert len({ink(letter) for letter in letters}) == len(letters)


def test_a_long_title_is_wrapped_above_its_column() -> None:
    wide, narrow = (image_grid([[WHITE]], ["x"], [title], 64) for title in ("one two three four five", "one"))
    assert wide.width == narrow.width and wide.height > narrow.height
