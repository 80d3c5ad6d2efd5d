"""Draw images of three concepts, with which docs/your-own.md can be tried: `python examples/draw_images.py photos`."""

import argparse
from pathlib import Path

from corelib.worlds.miniature.drawing import render_image

CONCEPTS = ["Amber_Checks", "Cobalt_Stripes", "Sky_Waves"]


def main() -> None:
    """Write ten images of each concept, `FOLDER/CONCEPT/1.jpg` and so on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a new folder")
    folder: Path = parser.parse_args().folder
    for concept in CONCEPTS:
        (folder / concept).mkdir(parents=True)
        for index in range(1, 11):
            image = render_image(concept, "Circles", index, seed=0, resolution=48, photo_style="Seed_Images")
            image.save(folder / concept / f"{index}.jpg", quality=95)


if __name__ == "__main__":
    main()
