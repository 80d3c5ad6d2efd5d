"""From an image as Pillow opens it to RGB in eight bits: without a guess, or not at all.

Pillow converts every mode into every other, some of them wrongly: grey of 16 bits becomes white, and hidden colours
become visible ones.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.Image import Transpose

CONVERTED = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
"""Modes that Pillow converts to RGB as it should."""

DEEP_GREY = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2"}
"""Modes of grey in 16 bits, and their order of bytes."""

ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""

TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What makes a picture upright, by its orientation."""

LARGEST_PROFILE = 4 * 2**20
"""Bytes of a colour profile. Those of cameras and screens have a few thousand."""

SAME = 3
"""Levels by which a profile may change a colour and still be sRGB, written in other words."""


class Unusable(Exception):
    """What an image is that cannot be used, and what is expected."""


def as_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB, upright, in the colours of sRGB; decoded whole.

    Of 16 bits the upper eight are kept, as Pillow does with colours and OpenCV with grey too. Raises `Unusable` for
    transparent pixels, and for modes from which no conversion is certain.
    """
    image.load()
    check_mode(image)
    if _hides_pixels(image):
        raise Unusable("it has transparent pixels, expected an opaque image")
    transform = _transform_to_srgb(image)
    if image.mode in DEEP_GREY:
        levels = np.frombuffer(image.tobytes(), DEEP_GREY[image.mode]).reshape(image.height, image.width)
        opaque = Image.fromarray((levels >> 8).astype(np.uint8))
    else:
        opaque = image.convert("L") if image.mode in ("1", "L", "LA") else image.convert("RGB")
    coloured: Any = opaque.convert("RGB") if transform is None else ImageCms.applyTransform(opaque, transform)
    turn = _turn(image)
    upright: Image.Image = coloured if turn is None else coloured.transpose(turn)
    return upright


def check_mode(image: Image.Image) -> None:
    """Raise `Unusable` for an image from whose mode no conversion to RGB is certain; its header is enough."""
    if image.mode not in CONVERTED and image.mode not in DEEP_GREY:
        of_print = ", those of print" if image.mode == "CMYK" else ""
        raise Unusable(f"its colours are {image.mode}{of_print}, expected RGB or grey")


def is_plain(image: Image.Image) -> bool:
    """Whether any library that opens the image and converts it to RGB has the pixels of `as_rgb`."""
    is_opaque = not image.has_transparency_data and image.mode in CONVERTED
    return is_opaque and _turn(image) is None and _transform_to_srgb(image) is None


def _hides_pixels(image: Image.Image) -> bool:
    if image.mode in DEEP_GREY:
        hidden = image.info.get("transparency")
        return hidden is not None and bool((np.frombuffer(image.tobytes(), DEEP_GREY[image.mode]) == hidden).any())
    if not image.has_transparency_data:
        return False
    alpha = np.asarray((image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A"))
    return bool((alpha < 255).any())


def _turn(image: Image.Image) -> Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises many kinds for damaged notes of a camera, which say nothing of the picture
        return None


# Colour profiles


def _transform_to_srgb(image: Image.Image) -> Any:
    """What takes the colours of an image to sRGB; None where they are those of sRGB, or nobody says."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None
    if len(profile) > LARGEST_PROFILE:
        raise Unusable(f"its colour profile has {len(profile):,} bytes, expected at most {LARGEST_PROFILE:,}")
    return _transform(profile, "L" if image.mode in ("1", "L", "LA", *DEEP_GREY) else "RGB")


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        probe = _probe(mode)
        changed = np.asarray(ImageCms.applyTransform(probe, transform), dtype=int)
    except Exception:  # no profile of such colours; what shows pictures leaves it out as well
        return None
    return transform if np.abs(changed - np.asarray(probe.convert("RGB"), dtype=int)).max() > SAME else None


def _probe(mode: str) -> Image.Image:
    """Colours from all over the cube, or all levels of grey."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))
