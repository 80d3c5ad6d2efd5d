"""OpenCV's bilinear resize (`cv2.resize` with its default, `INTER_LINEAR`), value by value.

The benchmark's evaluator resizes with it. On bytes it computes in fixed point: weights are multiples of 1/2048, and
sums are cut and rounded in steps. At exactly half the size it averages four pixels instead. On floating point numbers
it computes in single precision. Intel's library, with which some builds of OpenCV replace the second, differs by up to
2e-5, and from version to version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ONE = 2048
"""The weight 1 in fixed point."""


@dataclass(frozen=True)
class _Neighbours:
    """The two source rows or columns between which each target row or column lies.

    Attributes:
        first, second: their numbers; the same one at the border.
        share: weight of the second.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, size: int, target: int) -> _Neighbours:
        """Middles of pixels lie at half-integers, in the source and in the target."""
        places = ((np.arange(target) + 0.5) * (1.0 / (target / size)) - 0.5).astype(np.float32)
        first = np.floor(places).astype(np.int64)
        share = np.asarray(places - first.astype(np.float32), dtype=np.float32)
        return cls(np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), share)

    def without_share_at_the_border(self) -> _Neighbours:
        """The same for columns, where OpenCV gives the one pixel at a border the weight 1."""
        return _Neighbours(self.first, self.second, np.where(self.first == self.second, np.float32(0), self.share))

    def weights(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Of the first and the second, in fixed point."""
        first, second = (np.rint(share * np.float32(ONE)) for share in (np.float32(1) - self.share, self.share))
        return first.astype(np.int32), second.astype(np.int32)


def resized_bytes(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image (h, w, 3) in bytes as (side, side, 3)."""
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    levels = pixels.astype(np.int32)
    if (height, width) == (2 * side, 2 * side):
        four = levels[::2, ::2] + levels[::2, 1::2] + levels[1::2, ::2] + levels[1::2, 1::2]
        return ((four + 2) >> 2).astype(np.uint8)
    columns = _Neighbours.of(width, side).without_share_at_the_border()
    left, right = (weight[None, :, None] for weight in columns.weights())
    between = (levels[:, columns.first] * left + levels[:, columns.second] * right) >> 4
    rows = _Neighbours.of(height, side)
    upper, lower = (weight[:, None, None] for weight in rows.weights())
    summed = ((between[rows.first] * upper) >> 16) + ((between[rows.second] * lower) >> 16)
    return ((summed + 2) >> 2).astype(np.uint8)


def resized_floats(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """An image (h, w, 3) in single precision, not twice as large, as (side, side, 3)."""
    one = np.float32(1)
    columns = _Neighbours.of(pixels.shape[1], side).without_share_at_the_border()
    share = columns.share[None, :, None]
    between = pixels[:, columns.first] * (one - share) + pixels[:, columns.second] * share
    rows = _Neighbours.of(pixels.shape[0], side)
    share = rows.share[:, None, None]
    return np.asarray(between[rows.first] * (one - share) + between[rows.second] * share, dtype=np.float32)
