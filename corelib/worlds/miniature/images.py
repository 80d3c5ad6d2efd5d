"""Stage that renders the miniature's images."""

from __future__ import annotations

from pathlib import Path

from corelib.files.atomic import atomic_folder
from corelib.runs.stage_context import StageContext, StageResult
from corelib.settings.miniature import RenderingStage
from corelib.worlds.miniature.drawing import render_image, require_drawable


def render_world(settings: RenderingStage, context: StageContext) -> StageResult:
    """Write `images/STYLE/OBJECT/INDEX.jpg` for every object in every style and in the photo style.

    The folder `images` appears complete or not at all. Raises `ConfigurationError` if a style or an object cannot be
    drawn.
    """
    styles = sorted({*settings.styles, settings.photo_style})
    objects = sorted(settings.objects)
    for style in styles:
        for object_ in objects:
            require_drawable(style, object_, settings.photo_style)
    with atomic_folder(context.folder / "images") as folder:
        for style in styles:
            for object_ in objects:
                _render_cell(settings, style, object_, folder / style / object_)
    return StageResult(files=["images"], facts={"images": "images"})


def _render_cell(settings: RenderingStage, style: str, object_: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    for index in range(1, settings.images_per_cell + 1):
        image = render_image(style, object_, index, settings.seed, settings.resolution, settings.photo_style)
        image.save(folder / f"{index}.jpg", quality=settings.jpeg_quality, subsampling=0)
