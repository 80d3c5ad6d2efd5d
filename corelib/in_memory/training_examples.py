"""The user's images and prompts, as the pairs on which the trainer works."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from corelib.data.slices import Pair, Slice
from corelib.errors import AssetError, ConfigurationError, short_message
from corelib.files.image_files import is_portable, read_image
from corelib.files.image_modes import UnusableImage, as_rgb
from corelib.settings.objective import Objective
from corelib.settings.prompts import EMPTY_CONCEPT

UserImage = Image.Image | str | os.PathLike[str]
"""An image of Pillow, or the path of a JPEG or PNG file."""

FORGET, ANCHOR, RETAIN = "forget", "anchor", "retain"


@dataclass(frozen=True)
class TrainingExamples:
    """Images with prompts. Every image is a concept of its own, named by its set and its number.

    Attributes:
        images: the images, by pair.
        prompts: the prompt of each concept.
        num_forget, num_retain: number of forget and of retain images.
    """

    images: dict[Pair, UserImage]
    prompts: dict[str, str]
    num_forget: int
    num_retain: int

    @property
    def slice(self) -> Slice:
        """The forget and the retain pairs, in the order in which the user gave them."""
        forget = [_pair(FORGET, number) for number in range(self.num_forget)]
        return Slice(forget, [_pair(RETAIN, number) for number in range(self.num_retain)], sha256={})

    @property
    def candidates(self) -> dict[str, list[str]]:
        """The anchor concept of each forget concept."""
        return {_concept(FORGET, number): [_concept(ANCHOR, number)] for number in range(self.num_forget)}

    @property
    def texts(self) -> list[str]:
        """All prompts without repetition, and the empty prompt."""
        return list(dict.fromkeys([*self.prompts.values(), EMPTY_CONCEPT]))

    def prompt(self, concept: str, _: str) -> str:
        """The prompt of a concept; objects have no names here."""
        return self.prompts[concept]

    def read(self, pair: Pair) -> Image.Image:
        """An image in RGB. Raises `AssetError` if it cannot be used."""
        image = self.images[pair]
        if not isinstance(image, Image.Image):
            return read_image(Path(image))
        name = f"{pair.style.partition(' ')[0]}_images[{pair.index}]"
        try:
            return as_rgb(image)
        except UnusableImage as fault:
            raise AssetError(f"{name}: {fault}.") from None
        except (
            Exception
        ) as error:  # Pillow raises many types of exceptions for images whose files are damaged or closed
            raise AssetError(f"{name}: the image is not readable ({short_message(error)}).") from None


def collect_examples(
    objective: Objective,
    forget: tuple[Sequence[UserImage], str | Sequence[str]],
    anchor: tuple[Sequence[UserImage], str | Sequence[str]],
    retain: tuple[Sequence[UserImage], str | Sequence[str]],
) -> TrainingExamples:
    """The images and prompts that an objective needs. The images that it does not need are left out.

    Args:
        objective: the objective.
        forget, anchor, retain: images, with one prompt for each or one for all. There is one anchor prompt for each
            forget image.

    Raises `ConfigurationError` if images or prompts are missing or their numbers differ, and `AssetError` for the first
    file that is no image.
    """
    num_forget = _check_images(FORGET, forget[0])
    prompts = {FORGET: _one_each(FORGET, forget[1], num_forget), ANCHOR: _one_each(ANCHOR, anchor[1], num_forget)}
    for number, (own, other) in enumerate(zip(prompts[FORGET], prompts[ANCHOR], strict=True)):
        if own == other:
            raise ConfigurationError(
                f"anchor_prompts[{number}] is the forget prompt {own!r} itself, expected another concept."
            )
    images = {FORGET: list(forget[0])}
    if objective.unlearn.shows_anchor:
        images[ANCHOR] = list(anchor[0])
        if len(images[ANCHOR]) != num_forget:
            origin = "the base model's images of" if objective.unlearn.images == "generated" else "images of"
            raise ConfigurationError(
                f"anchor_images has {len(images[ANCHOR])} images, expected {num_forget}: this method trains on {origin}"
                " the anchor concepts; give one for each forget image."
            )
        _check_images(ANCHOR, anchor[0])
    if objective.retain is not None:
        num_retain = _check_images(RETAIN, retain[0])
        images[RETAIN], prompts[RETAIN] = list(retain[0]), _one_each(RETAIN, retain[1], num_retain)
    examples = TrainingExamples(
        {_pair(name, number): image for name, part in images.items() for number, image in enumerate(part)},
        {_concept(name, number): prompt for name, part in prompts.items() for number, prompt in enumerate(part)},
        num_forget,
        len(images.get(RETAIN, [])),
    )
    for image in examples.images.values():
        if not isinstance(image, Image.Image):
            is_portable(Path(image))  # reads the header, and raises if it is none of an image
    return examples


def _concept(name: str, number: int) -> str:
    return f"{name} {number}"


def _pair(name: str, number: int) -> Pair:
    return Pair(_concept(name, number), "", number)


def _check_images(name: str, images: Any) -> int:
    """The number of images. Raises `ConfigurationError` if there are none, or if an entry is no image and no path."""
    if isinstance(images, str | os.PathLike | Image.Image):
        raise ConfigurationError(f"{name}_images is one image, expected a list of images or paths.")
    if not len(images):
        raise ConfigurationError(f"{name}_images is empty, expected at least one image: the method needs them.")
    for number, image in enumerate(images):
        if not isinstance(image, Image.Image | str | os.PathLike):
            kind = type(image).__name__
            raise ConfigurationError(f"{name}_images[{number}] is {kind}, expected an image of Pillow or a path.")
    return len(images)


def _one_each(name: str, prompts: str | Sequence[str], count: int) -> list[str]:
    """One prompt for each image. Raises `ConfigurationError` if their number differs, or if one is not a text."""
    listed = [prompts] * count if isinstance(prompts, str) else list(prompts)
    if len(listed) != count:
        raise ConfigurationError(
            f"{name}_prompts has {len(listed)} prompts, expected {count}, one for each image, or one text for all."
        )
    prompt: object
    for number, prompt in enumerate(listed):
        if not isinstance(prompt, str):
            raise ConfigurationError(f"{name}_prompts[{number}] is {type(prompt).__name__}, expected a text.")
    return listed
