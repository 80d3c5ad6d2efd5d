"""A rendered benchmark: 50 styles and a photo style times 20 objects, with names of its own.

A style is a palette and a texture (`Amber_Stripes`, `Cobalt_Checks`), so the names of styles share words and their
images share features: neither the language nor the colours alone distinguish two styles. An object is a shape, named in
the plural as in UnlearnCanvas. Every image is a function of (seed, style, object, index) and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from corelib.errors import ConfigurationError
from corelib.randomness import seed_of

Colour = tuple[int, int, int]

Outline = list[tuple[float, float]]

Field = NDArray[np.float32]  # (height, width), 0 to 1

SUPERSAMPLING = 4  # samples per pixel and axis

SIZE = (0.66, 0.80)  # larger extent of a shape, as a fraction of the frame

SHIFT = 0.04  # fraction of the frame, in either direction

ROTATION = 9.0  # degrees, in either direction

CHANNEL_JITTER = 16.0  # of 255, in either direction; one draw per image and channel, for all colours

BRIGHTNESS_JITTER = 0.10  # in either direction

TEXTURE_EDGE = 2.5  # steepness of the transition between the two tones of a texture


# two tones of the background, two tones of the figure
PALETTES: Mapping[str, tuple[Colour, Colour, Colour, Colour]] = {
    "Amber": ((48, 22, 8), (126, 70, 24), (240, 140, 10), (255, 222, 120)),
    "Cobalt": ((8, 14, 70), (34, 60, 160), (70, 135, 245), (190, 220, 255)),
    "Crimson": ((255, 214, 208), (236, 140, 140), (110, 0, 20), (210, 36, 56)),
    "Emerald": ((208, 246, 208), (136, 208, 156), (0, 72, 40), (24, 150, 86)),
    "Lilac": ((40, 14, 66), (106, 58, 152), (176, 116, 236), (234, 208, 255)),
    "Olive": ((30, 34, 6), (92, 96, 30), (172, 182, 52), (234, 238, 150)),
    "Rose": ((255, 224, 244), (244, 160, 210), (140, 6, 90), (226, 80, 166)),
    "Sepia": ((240, 226, 196), (200, 170, 126), (70, 40, 22), (150, 104, 62)),
    "Sky": ((220, 242, 255), (146, 202, 244), (4, 54, 120), (30, 120, 205)),
    "Teal": ((2, 46, 52), (18, 116, 116), (84, 205, 190), (206, 252, 242)),
}

PHOTO_GROUND: Colour = (206, 206, 204)

PHOTO_FIGURE: Colour = (92, 92, 94)


def _wave(distance: Field, period: float, phase: float) -> Field:
    """A soft square wave along `distance`; distance and period are fractions of the frame."""
    return 0.5 + 0.5 * np.tanh(TEXTURE_EDGE * np.sin(2 * math.pi * (distance / period + phase)))


def _checks(across: Field, down: Field, phases: Field) -> Field:
    waves = np.sin(2 * math.pi * (across / 0.5 + phases[0])) * np.sin(2 * math.pi * (down / 0.5 + phases[1]))
    return 0.5 + 0.5 * np.tanh(2 * TEXTURE_EDGE * waves)


def _dots(across: Field, down: Field, phases: Field) -> Field:
    waves = np.cos(2 * math.pi * (across / 0.4 + phases[0])) + np.cos(2 * math.pi * (down / 0.4 + phases[1]))
    return 0.5 + 0.5 * np.tanh(TEXTURE_EDGE * (waves - 0.8))


def _rings(across: Field, down: Field, phases: Field) -> Field:
    centre = 0.42 + 0.16 * phases
    return _wave(np.hypot(across - centre[0], down - centre[1]), 0.34, 0.75)


def _stripes(across: Field, down: Field, phases: Field) -> Field:
    return _wave((across + down) / math.sqrt(2), 0.32, phases[0])


def _waves(across: Field, down: Field, phases: Field) -> Field:
    return _wave(down + 0.07 * np.sin(2 * math.pi * (across / 0.62 + phases[1])), 0.36, phases[0])


# no period below 8 of 32 pixels: the autoencoder would lose it
TEXTURES: Mapping[str, Callable[[Field, Field, Field], Field]] = {
    "Checks": _checks,
    "Dots": _dots,
    "Rings": _rings,
    "Stripes": _stripes,
    "Waves": _waves,
}


def _arc(start: float, end: float, radius: float = 1.0, x: float = 0.0, y: float = 0.0) -> Outline:
    """Points on a circle around (x, y), angles in degrees clockwise from the right."""
    angles = np.radians(np.linspace(start, end, max(4, int(abs(end - start) / 6) + 1)))
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def _polar(radii: Callable[[float], float], points: int) -> Outline:
    """A closed curve whose radius is a function of the turn (0 to 1, clockwise from the top)."""
    turns = [point / points for point in range(points)]
    return [(radii(turn) * math.sin(2 * math.pi * turn), -radii(turn) * math.cos(2 * math.pi * turn)) for turn in turns]


def _turned(outline: Outline, degrees: float) -> Outline:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cosine - y * sine, x * sine + y * cosine) for x, y in outline]


def _box(left: float, top: float, right: float, bottom: float) -> Outline:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _heart(points: int = 48) -> Outline:
    turns = [2 * math.pi * point / points for point in range(points)]
    return [
        (
            math.sin(turn) ** 3,
            -(13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn) - math.cos(4 * turn)) / 16 - 0.1,
        )
        for turn in turns
    ]


_PLUS: Outline = [
    (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
    (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
]  # fmt: skip


# coordinates from -1 to 1, y downwards: polygons to fill, then polygons to cut out
SHAPES: Mapping[str, tuple[list[Outline], list[Outline]]] = {
    "Arrows": ([[(0, -1), (0.95, 0.0), (0.36, 0.0), (0.36, 1), (-0.36, 1), (-0.36, 0.0), (-0.95, 0.0)]], []),
    "Bolts": ([[(0.35, -1), (-0.75, 0.2), (-0.1, 0.2), (-0.4, 1), (0.75, -0.3), (0.08, -0.3)]], []),
    "Circles": ([_arc(0, 354)], []),
    "Crescents": ([_arc(0, 354)], [_arc(0, 354, 0.8, 0.5)]),
    "Crosses": ([_PLUS], []),
    "Diamonds": ([[(0, -1), (0.8, 0), (0, 1), (-0.8, 0)]], []),
    "Donuts": ([_arc(0, 354)], [_arc(0, 354, 0.48)]),
    "Drops": ([[(0, -1), *_arc(-25, 205, 0.68, 0, 0.32)]], []),
    "Flowers": ([_polar(lambda turn: 0.68 + 0.32 * math.cos(10 * math.pi * turn), 90)], [_arc(0, 354, 0.22)]),
    "Frames": ([_box(-0.9, -0.9, 0.9, 0.9)], [_box(-0.45, -0.45, 0.45, 0.45)]),
    "Hearts": ([_heart()], []),
    "Hourglasses": ([[(-0.8, -1), (0.8, -1), (0.1, 0), (0.8, 1), (-0.8, 1), (-0.1, 0)]], []),
    "Houses": (
        [[(0, -1), (1, -0.15), (0.75, -0.15), (0.75, 0.95), (-0.75, 0.95), (-0.75, -0.15), (-1, -0.15)]],
        [_box(-0.25, 0.25, 0.25, 0.95)],
    ),
    "Ladders": (
        [_box(-0.8, -1, -0.4, 1), _box(0.4, -1, 0.8, 1), _box(-0.4, -0.68, 0.4, -0.3), _box(-0.4, 0.3, 0.4, 0.68)],
        [],
    ),
    "Mushrooms": ([[*_arc(180, 360, 1.0, 0, 0.1), (0.32, 0.1), (0.32, 0.95), (-0.32, 0.95), (-0.32, 0.1)]], []),
    "Saltires": ([_turned(_PLUS, 45)], []),
    "Squares": ([_box(-0.85, -0.85, 0.85, 0.85)], []),
    "Stairs": (
        [[(-1, 1), (-1, 0.4), (-0.35, 0.4), (-0.35, -0.25), (0.3, -0.25), (0.3, -0.9), (1, -0.9), (1, 1)]],
        [],
    ),
    "Stars": ([_polar(lambda turn: 1.0 if round(turn * 10) % 2 == 0 else 0.4, 10)], []),
    "Triangles": ([[(0, -0.95), (1, 0.8), (-1, 0.8)]], []),
}

STYLES: tuple[str, ...] = tuple(sorted(f"{palette}_{texture}" for palette in PALETTES for texture in TEXTURES))

OBJECTS: tuple[str, ...] = tuple(sorted(SHAPES))


def render_image(style: str, object_: str, index: int, seed: int, resolution: int, photo_style: str) -> Image.Image:
    """One image of the benchmark, a square of `resolution` pixels in RGB.

    Objects of the style `photo_style` are drawn in flat grey, without palette or texture.
    Raises `ConfigurationError` if `style` or `object_` cannot be drawn.
    """
    require_drawable(style, object_, photo_style)
    draws = np.random.default_rng(seed_of("render", seed, style, object_, index))
    fine = resolution * SUPERSAMPLING
    figure = _figure(object_, fine, draws)
    if style == photo_style:
        texture_field = np.zeros_like(figure)
        tones = np.array([PHOTO_GROUND, PHOTO_GROUND, PHOTO_FIGURE, PHOTO_FIGURE], dtype=np.float32)
        tint = np.zeros(3)
    else:
        palette, texture = style.split("_")
        texture_field = _texture(texture, fine, draws)
        tones = np.array(PALETTES[palette], dtype=np.float32)
        tint = draws.uniform(-CHANNEL_JITTER, CHANNEL_JITTER, 3)
    # fraction of each pixel that each of the four tones covers: (resolution, resolution, 4)
    light, inside, light_inside = (_averaged(field) for field in (texture_field, figure, texture_field * figure))
    shares = np.stack(
        [1 - inside - light + light_inside, light - light_inside, inside - light_inside, light_inside], -1
    )
    brightness = draws.uniform(1 - BRIGHTNESS_JITTER, 1 + BRIGHTNESS_JITTER)
    pixels = (shares @ tones) * brightness + tint
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def require_drawable(style: str, object_: str, photo_style: str) -> None:
    """Raise `ConfigurationError` if a style or object cannot be drawn."""
    if style != photo_style and style not in STYLES:
        raise ConfigurationError(
            f"style `{style}`: cannot be drawn; expected `{photo_style}` or PALETTE_TEXTURE with a palette of "
            f"{', '.join(PALETTES)} and a texture of {', '.join(TEXTURES)}."
        )
    if object_ not in SHAPES:
        raise ConfigurationError(f"object `{object_}`: cannot be drawn; expected one of {', '.join(OBJECTS)}.")


def _averaged(field: Field) -> Field:
    """The mean over each pixel's samples, (resolution, resolution)."""
    resolution = len(field) // SUPERSAMPLING
    return field.reshape(resolution, SUPERSAMPLING, resolution, SUPERSAMPLING).mean(axis=(1, 3), dtype=np.float32)


def _figure(object_: str, fine: int, draws: np.random.Generator) -> Field:
    """Mask of the shape: 1 inside and 0 outside, (fine, fine), with random position, size and rotation."""
    half_extent = draws.uniform(*SIZE) * fine / 2
    centre = fine / 2 + draws.uniform(-SHIFT, SHIFT, 2) * fine
    rotation = draws.uniform(-ROTATION, ROTATION)
    canvas = Image.new("L", (fine, fine), 0)
    pen = ImageDraw.Draw(canvas)
    filled, cut_out = SHAPES[object_]
    for outlines, value in ((filled, 255), (cut_out, 0)):
        for outline in outlines:
            points = [(centre[0] + x * half_extent, centre[1] + y * half_extent) for x, y in _turned(outline, rotation)]
            pen.polygon(points, fill=value)
    return np.asarray(canvas, dtype=np.float32) / np.float32(255)


def _texture(texture: str, fine: int, draws: np.random.Generator) -> Field:
    """A field of two tones over the frame, (fine, fine), with a random phase."""
    ruler = ((np.arange(fine) + 0.5) / fine).astype(np.float32)
    down, across = np.meshgrid(ruler, ruler, indexing="ij")
    return TEXTURES[texture](across, down, draws.uniform(0, 1, 2).astype(np.float32))
