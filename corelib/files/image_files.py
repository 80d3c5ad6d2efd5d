"""Image files: read as RGB within limits, with errors that name the file."""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from corelib.errors import AssetError, short_message
from corelib.files.image_modes import UnusableImage, as_rgb, check_mode, needs_no_conversion
from corelib.files.paths import read_bytes

MAX_PIXELS = 64_000_000
"""Maximum number of pixels. No benchmark image has more; if a header claims more, the image is not decoded."""

MAX_FILE_BYTES = 256 * 2**20
"""Maximum size of an image file in bytes; the benchmark's have three million."""

START_OF_SCAN = b"\xff\xda"

MAX_SCANS = 200
"""Maximum number of scans of a JPEG. Progressive ones have about ten. A scan of few bytes still visits all pixels."""

FORMATS = ("JPEG", "PNG")
"""Accepted image formats, whatever the name of the file. Pillow has fifty more readers, which are not needed. Its JPEG
reader also accepts files of several pictures (MPO, as phones write it) and reads the first."""

OTHER_FORMATS = {
    "a GIF file": rb"GIF8",
    "a WebP file": rb"RIFF....WEBP",
    "a TIFF file": rb"II\*\0|MM\0\*",
    "a BMP file": rb"BM",
    "an AVIF file": rb"....ftypavi[fs]",
    "a HEIC file": rb"....ftyp(hei|hev|mif)",
    "a JPEG 2000 file": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
}
"""The first bytes of other image formats, as patterns."""


def read_image(path: Path) -> Image.Image:
    """Decode an image file as RGB. Raises `AssetError` if it is truncated, too large or not an image."""
    return decode_image(_content(path), str(path))


def is_portable(path: Path) -> bool:
    """Whether every library reads the same pixels from an image file as `read_image`, decided by its header.

    Raises `AssetError` if it is too large or not an image.
    """
    with _opened_as(_content(path), str(path)) as image:
        return needs_no_conversion(image)


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_FILE_BYTES)
    except OSError as error:
        reason = f"the image is not readable ({error.strerror})"
        raise AssetError(f"{path}: {reason}, expected a JPEG or PNG file.") from None


def decode_image(content: bytes, name: str) -> Image.Image:
    """Decode the bytes of an image as RGB.

    Raises `AssetError`, beginning with `name`, if it is truncated, too large or not an image.
    """
    with _opened_as(content, name) as image:
        try:
            return as_rgb(image)
        except UnusableImage as fault:
            raise AssetError(f"{name}: {fault}.") from None
        except Exception as error:  # Pillow raises many types of exceptions for damaged files
            raise _damaged(name, error) from None


def _opened_as(content: bytes, name: str) -> Image.Image:
    try:
        return open_image(content)
    except UnusableImage as fault:
        raise AssetError(f"{name}: {fault}.") from None
    except Exception as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> AssetError:
    return AssetError(f"{name}: the image is damaged ({short_message(error)}), expected a whole file.")


def open_image(content: bytes) -> Image.Image:
    """Open an image: read its header and nothing else.

    Raises `UnusableImage` if the bytes are not an image, or if decoding it would exceed the limits on memory and time.
    Raises any exception of Pillow's for damaged files.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnusableImage(f"{_kind_of_file(content)}, expected a JPEG or PNG file") from None
    except Image.DecompressionBombError:
        raise UnusableImage(
            f"the image is too large, expected at most {MAX_PIXELS // 1_000_000} million pixels"
        ) from None
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise UnusableImage(f"{size} pixels, expected at most {MAX_PIXELS // 1_000_000} million")
    if image.format != "PNG" and (scans := content.count(START_OF_SCAN)) > MAX_SCANS:
        raise UnusableImage(f"the image has {scans} scans, expected at most {MAX_SCANS}")
    if image.format == "PNG" and (pictures := getattr(image, "n_frames", 1)) > 1:
        raise UnusableImage(f"an animation of {pictures} pictures, expected one")
    check_mode(image)
    return image


def _kind_of_file(content: bytes) -> str:
    """The kind of a file that is neither JPEG nor PNG, in words."""
    if not content:
        return "empty"
    return next((kind for kind, start in OTHER_FORMATS.items() if re.match(start, content, re.DOTALL)), "not an image")
