"""Unlearn one style of the miniature with CORE, save the delta, and show images before and after.

python examples/unlearn_a_style.py unlearned/
"""

import argparse
from pathlib import Path

from miniature import OBJECTS, draw, load_pipeline, prompts, sample
from PIL import Image

from corelib.library import apply_delta, unlearn

FORGET, ANCHOR, RETAIN = "Sky_Waves", "Amber_Dots", "Teal_Stripes"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="folder for the delta and the picture")
parser.add_argument("--steps", type=int, default=200, help="training steps (default: %(default)s)")
arguments = parser.parse_args()
arguments.folder.mkdir(parents=True, exist_ok=True)

pipeline = load_pipeline()
before = [sample(pipeline, style) for style in (FORGET, RETAIN)]
model = unlearn(
    pipeline,
    forget_images=draw(FORGET),
    forget_prompts=prompts(FORGET),
    anchor_prompts=prompts(ANCHOR),
    retain_images=draw(RETAIN),
    retain_prompts=prompts(RETAIN),
    steps=arguments.steps,
    learning_rate=5e-4,
)
model.save(arguments.folder / "delta.safetensors")
apply_delta(pipeline, arguments.folder / "delta.safetensors")
after = [sample(pipeline, style) for style in (FORGET, RETAIN)]

side = 64
picture = Image.new("RGB", (side * len(OBJECTS), side * 4))
for row, images in enumerate([before[0], after[0], before[1], after[1]]):
    for column, image in enumerate(images):
        picture.paste(image.resize((side, side), Image.Resampling.NEAREST), (side * column, side * row))
picture.save(arguments.folder / "before_and_after.png")
first, last = model.losses["loss"][:10].mean(), model.losses["loss"][-10:].mean()
print(f"loss {first:.3f} -> {last:.3f}; rows of the picture: {FORGET} before and after, {RETAIN} before and after")
