"""Figures: sampled images side by side, one row per prompt and one column per model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from corelib.files.atomic import atomic_write
from corelib.files.image_files import read_image
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext, StageResult
from corelib.sampling.collection import image_paths
from corelib.settings.reports import FigureStage

MARGIN = 8

FONT = "fonts/ttf/DejaVuSans.ttf"
"""The font of the titles, in matplotlib's data; Pillow's own has few letters beyond ASCII."""

LABEL_PIXELS = 12

TEXT_COLOUR, BACKGROUND_COLOUR = (32, 32, 32), (255, 255, 255)


def draw_figure(settings: FigureStage, context: StageContext) -> StageResult:
    """Stage: draw the grid as a PNG."""
    name = f"{settings.name}.png"
    with atomic_write(context.folder / name) as temporary:
        figure_image(settings, context.inputs).save(temporary, format="PNG")
    return StageResult([name])


def figure_image(settings: FigureStage, inputs: Mapping[str, Manifest]) -> Image.Image:
    """The grid of a figure, from the samples of its columns by role."""
    samples = {column: image_paths(inputs[column]) for column, _ in settings.columns}
    grid = [
        [read_image(samples[column][style, object_, settings.seed]) for column, _ in settings.columns]
        for style, object_ in settings.rows
    ]
    return image_grid(grid, settings.row_titles, [title for _, title in settings.columns], settings.pixels)


def image_grid(
    grid: list[list[Image.Image]], row_titles: list[str], column_titles: list[str], pixels: int
) -> Image.Image:
    """Grid of images, at most `pixels` pixels a side, with titles to the left of the rows and above the columns.

    Small images are enlarged by a whole factor without smoothing, so that every sampled pixel is a square of the same
    size; large ones are reduced.
    """
    size = grid[0][0].width
    is_enlarged = size < pixels
    pixels = size * (pixels // size) if is_enlarged else pixels
    resampling = Image.Resampling.NEAREST if is_enlarged else Image.Resampling.LANCZOS
    # the basic layout is part of Pillow, so that the titles do not depend on libraries of the machine
    font = ImageFont.truetype(Path(mpl.get_data_path(), FONT), LABEL_PIXELS, layout_engine=ImageFont.Layout.BASIC)
    left = max(round(font.getlength(title)) for title in row_titles) + 2 * MARGIN
    wrapped = [_wrap(title, font, pixels) for title in column_titles]
    top = max(len(lines) for lines in wrapped) * (LABEL_PIXELS + 3) + 2 * MARGIN
    step = pixels + MARGIN
    picture = Image.new("RGB", (left + step * len(column_titles), top + step * len(grid)), BACKGROUND_COLOUR)
    draw = ImageDraw.Draw(picture)
    for column, lines in enumerate(wrapped):
        centre = left + column * step + pixels // 2
        draw.multiline_text((centre, top - MARGIN), "\n".join(lines), TEXT_COLOUR, font, anchor="md", align="center")
    for row, (title, images) in enumerate(zip(row_titles, grid, strict=True)):
        draw.text((left - MARGIN, top + row * step + pixels // 2), title, TEXT_COLOUR, font, anchor="rm")
        for column, image in enumerate(images):
            picture.paste(image.resize((pixels, pixels), resampling), (left + column * step, top + row * step))
    return picture


def _wrap(title: str, font: ImageFont.FreeTypeFont, pixels: int) -> list[str]:
    """Break a title into lines that fit above its column."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > pixels:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
