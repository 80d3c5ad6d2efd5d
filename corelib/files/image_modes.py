"""Conversion of Pillow's images to 8-bit RGB; an image is refused if its conversion is not certain.

Pillow converts every mode to every other, and some of them wrongly: 16-bit grey becomes white, and hidden colours
become visible.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.Image import Transpose

CONVERTIBLE_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
"""Modes that Pillow converts to RGB correctly."""

GREY16_DTYPES = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2"}
"""Modes of 16-bit grey, and their NumPy dtype with its byte order."""

ORIENTATION = 0x0112
"""The EXIF tag of the camera's orientation."""

TRANSPOSITIONS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""The transposition that makes an image upright, by its EXIF orientation."""

MAX_PROFILE_BYTES = 4 * 2**20
"""Maximum size of a colour profile in bytes; those of cameras and screens have a few thousand."""

SRGB_TOLERANCE = 3
"""Maximum change of a colour, in levels, at which a profile counts as another description of sRGB."""


class UnusableImage(Exception):
    """An image cannot be used. The message is a clause without a full stop: the fault, and what was expected."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Decode an image and convert it to upright RGB in the sRGB colour space.

    Of 16-bit values the upper eight bits are kept, as in Pillow for colours and in OpenCV also for grey. Raises
    `UnusableImage` for transparent pixels, and for modes whose conversion is not certain.
    """
    image.load()
    check_mode(image)
    if _hides_pixels(image):
        raise UnusableImage("it has transparent pixels, expected an opaque image")
    transform = _transform_to_srgb(image)
    if image.mode in GREY16_DTYPES:
        levels = np.frombuffer(image.tobytes(), GREY16_DTYPES[image.mode]).reshape(image.height, image.width)
        opaque = Image.fromarray((levels >> 8).astype(np.uint8))
    else:
        opaque = image.convert("L") if image.mode in ("1", "L", "LA") else image.convert("RGB")
    coloured: Any = opaque.convert("RGB") if transform is None else ImageCms.applyTransform(opaque, transform)
    turn = _transposition(image)
    upright: Image.Image = coloured if turn is None else coloured.transpose(turn)
    return upright


def check_mode(image: Image.Image) -> None:
    """Raise `UnusableImage` for an image whose mode has no certain conversion to RGB; reads only the header."""
    if image.mode not in CONVERTIBLE_MODES and image.mode not in GREY16_DTYPES:
        for_print = " (for print)" if image.mode == "CMYK" else ""
        raise UnusableImage(f"its colours are {image.mode}{for_print}, expected RGB or grey")


def needs_no_conversion(image: Image.Image) -> bool:
    """Whether every library that opens the image and converts it to RGB gets the pixels of `as_rgb`."""
    is_simple = not image.has_transparency_data and image.mode in CONVERTIBLE_MODES
    return is_simple and _transposition(image) is None and _transform_to_srgb(image) is None


def _hides_pixels(image: Image.Image) -> bool:
    if image.mode in GREY16_DTYPES:
        hidden = image.info.get("transparency")
        return hidden is not None and bool((np.frombuffer(image.tobytes(), GREY16_DTYPES[image.mode]) == hidden).any())
    if not image.has_transparency_data:
        return False
    alpha = np.asarray((image if "A" in image.getbands() else image.convert("RGBA")).getchannel("A"))
    return bool((alpha < 255).any())


def _transposition(image: Image.Image) -> Transpose | None:
    try:
        return TRANSPOSITIONS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises many types for damaged EXIF data, which do not affect the pixels
        return None


# Colour profiles


def _transform_to_srgb(image: Image.Image) -> Any:
    """The transform from the colours of an image to sRGB; None if they are those of sRGB or have no valid profile."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None
    if len(profile) > MAX_PROFILE_BYTES:
        raise UnusableImage(f"its colour profile has {len(profile):,} bytes, expected at most {MAX_PROFILE_BYTES:,}")
    return _transform(profile, "L" if image.mode in ("1", "L", "LA", *GREY16_DTYPES) else "RGB")


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, srgb, mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
        probe = _probe(mode)
        changed = np.asarray(ImageCms.applyTransform(probe, transform), dtype=int)
    except Exception:  # not a profile for such colours; image viewers ignore it as well
        return None
    return transform if np.abs(changed - np.asarray(probe.convert("RGB"), dtype=int)).max() > SRGB_TOLERANCE else None


def _probe(mode: str) -> Image.Image:
    """A test image with colours from the whole RGB cube, or with all levels of grey."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3))
