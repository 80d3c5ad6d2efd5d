"""Unlearn one style of the miniature with several methods, and print their accuracies and Frechet distances.

python examples/compare_methods.py core esd
"""

import argparse

import numpy as np
import torch
from miniature import OBJECTS, draw, load_classifier, load_pipeline, prompts, sample

from corelib.library import apply_delta, evaluate_styles, frechet_distance, methods, predict_concepts, unlearn

FORGET, ANCHOR = "Sky_Waves", "Amber_Dots"
RETAIN = ["Amber_Dots", "Teal_Stripes", "Olive_Rings", "Rose_Checks"]

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("methods", nargs="*", default=["core", "esd"], help="names of methods (default: core esd)")
parser.add_argument("--steps", type=int, default=150, help="training steps of each method (default: %(default)s)")
arguments = parser.parse_args()

classify_style, classify_object = load_classifier("style"), load_classifier("object")
concepts = [(style, object_) for style in (FORGET, *RETAIN) for object_ in OBJECTS]


def features(images: list) -> torch.Tensor:
    pixels = torch.stack([torch.from_numpy(np.array(image, dtype=np.float32)) for image in images])
    return classify_object.features(pixels.permute(0, 3, 1, 2)).double()


print("accuracies in percent (Wilson 95 % interval); distance of the retained styles' images to real ones")
for method in ["original", *arguments.methods]:
    pipeline = load_pipeline()
    if method != "original":
        model = unlearn(
            pipeline,
            draw(FORGET),
            prompts(FORGET),
            prompts(ANCHOR),
            [image for style in RETAIN for image in draw(style)],
            [text for style in RETAIN for text in prompts(style)],
            anchor_images=draw(ANCHOR),
            method=method,
            steps=arguments.steps,
            learning_rate=50 * methods()[method].learning_rate,  # a model this small needs larger steps
        )
        apply_delta(pipeline, model.delta)
    images = [image for style in (FORGET, *RETAIN) for image in sample(pipeline, style)]
    counts = evaluate_styles(predict_concepts(images, concepts, classify_style, classify_object), forget=[FORGET])
    accuracies = [
        "{} {:6.2f} ({:.1f} to {:.1f})".format(name, count.percent, *count.interval()) for name, count in counts.items()
    ]
    distance = frechet_distance(
        features(images[len(OBJECTS) :]), features([image for style in RETAIN for image in draw(style)])
    )
    print(f"{method:12} {'   '.join(accuracies)}   distance {distance:.2f}", flush=True)
