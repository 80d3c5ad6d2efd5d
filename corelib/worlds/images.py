"""Reading a benchmark's images by style, object and index, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from corelib.artefacts import Manifest
from corelib.errors import AssetError

MOST_PIXELS = 64_000_000
"""No image of a benchmark is larger; a header that claims so is not read further."""


class ImageFolder:
    """Images in UnlearnCanvas' layout, STYLE/OBJECT/INDEX.jpg, INDEX from 1."""

    def __init__(self, world: Manifest) -> None:
        self.root = world.folder / world.facts["images"]
        self._world = world

    def path(self, style: str, object_: str, index: int) -> Path:
        """Where an image lies."""
        return self.root / style / object_ / f"{index}.jpg"

    def check(self) -> None:
        """Raise `ArtefactError` if the bytes are not those vouched for, where the world vouches for its images.

        To be called after the images were read, since a damaged image has a sentence of its own. The user's own images
        are vouched for one by one, in slices.
        """
        if (name := self._world.facts["images"]) in self._world.files:
            self._world.file(name)

    def read(self, style: str, object_: str, index: int) -> Image.Image:
        """An image in RGB. Raises `AssetError` if it is missing, truncated or not an image."""
        path = self.path(style, object_, index)
        if not path.is_file():
            there = sorted(file.name for file in path.parent.glob("*")) if path.parent.is_dir() else []
            raise AssetError(f"{path}: the image is missing, expected it beside the {len(there)} files of its cell.")
        return read_image(path)


def read_image(path: Path) -> Image.Image:
    """An image file in RGB, decoded whole. Raises `AssetError` if it is truncated, too large or not an image."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                size = f"{image.width} x {image.height}"
                raise AssetError(f"{path}: {size} pixels, expected at most {MOST_PIXELS // 1_000_000} million.")
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise AssetError(f"{path}: not an image, expected a JPEG file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise AssetError(f"{path}: the image is damaged ({error}), expected a whole JPEG file.") from None
