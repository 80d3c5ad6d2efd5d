"""OpenCV's bilinear resize (`cv2.resize` with its default, `INTER_LINEAR`), value by value.

The benchmark's evaluator resizes with it. On 8-bit images it computes in fixed point: weights are multiples of 1/2048,
and sums are truncated and rounded in steps. At exactly half the size it averages four pixels instead. On
floating-point images it computes in single precision. Some builds of OpenCV use Intel's library for floating-point
images; its values differ by up to 2e-5, and from version to version.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIXED_POINT_ONE = 2048
"""The weight 1 in fixed point."""


@dataclass(frozen=True)
class _Neighbours:
    """The two source rows or columns from which each target row or column is interpolated.

    Attributes:
        first, second: indices of the two; equal at the border.
        share: weight of the second.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def of(cls, size: int, target: int) -> _Neighbours:
        """The neighbours in `size` pixels of `target` pixels; pixel centres are at half-integers in both."""
        positions = ((np.arange(target) + 0.5) * (1.0 / (target / size)) - 0.5).astype(np.float32)
        first = np.floor(positions).astype(np.int64)
        share = np.asarray(positions - first.astype(np.float32), dtype=np.float32)
        return cls(np.clip(first, 0, size - 1), np.clip(first + 1, 0, size - 1), share)

    def for_columns(self) -> _Neighbours:
        """The neighbours as OpenCV uses them for columns: the single pixel at a border has the weight 1."""
        return _Neighbours(self.first, self.second, np.where(self.first == self.second, np.float32(0), self.share))

    def weights(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Weights of the first and the second, in fixed point."""
        first, second = (
            np.rint(share * np.float32(FIXED_POINT_ONE)) for share in (np.float32(1) - self.share, self.share)
        )
        return first.astype(np.int32), second.astype(np.int32)


def resize_uint8(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize an 8-bit image (h, w, 3) to (side, side, 3)."""
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    levels = pixels.astype(np.int32)
    if (height, width) == (2 * side, 2 * side):
        sums = levels[::2, ::2] + levels[::2, 1::2] + levels[1::2, ::2] + levels[1::2, 1::2]
        return ((sums + 2) >> 2).astype(np.uint8)
    columns = _Neighbours.of(width, side).for_columns()
    left, right = (weight[None, :, None] for weight in columns.weights())
    resized_columns = (levels[:, columns.first] * left + levels[:, columns.second] * right) >> 4
    rows = _Neighbours.of(height, side)
    upper, lower = (weight[:, None, None] for weight in rows.weights())
    sums = ((resized_columns[rows.first] * upper) >> 16) + ((resized_columns[rows.second] * lower) >> 16)
    return ((sums + 2) >> 2).astype(np.uint8)


def resize_float32(pixels: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Resize an image (h, w, 3) in single precision, not exactly twice as large, to (side, side, 3)."""
    one = np.float32(1)
    columns = _Neighbours.of(pixels.shape[1], side).for_columns()
    share = columns.share[None, :, None]
    resized_columns = pixels[:, columns.first] * (one - share) + pixels[:, columns.second] * share
    rows = _Neighbours.of(pixels.shape[0], side)
    share = rows.share[:, None, None]
    resized = resized_columns[rows.first] * (one - share) + resized_columns[rows.second] * share
    return np.asarray(resized, dtype=np.float32)
