"""Checks of a study that need more than one leaf."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

from corelib.errors import listed
from corelib.settings.given_models import GivenModel
from corelib.settings.prompts import EMPTY_CONCEPT
from corelib.settings.unlearning import LENGTH_DECIMALS
from corelib.study.anchors import FIRST_RETAIN
from corelib.study.schema import (
    NAME,
    ORIGINAL,
    AnchorPairs,
    Figure,
    Method,
    MiniatureWorld,
    Row,
    Scheme,
    Study,
    Task,
    UnlearnCanvasWorld,
)
from corelib.study.wording import to_yaml

MAX_IMAGES = 100_000
"""Maximum number of images per model; the paper's original model has 1,140. A specification lists them, and must stay
below the size limit of `corelib.files.json_files` even with the longest names."""

MAX_LENGTH = 1e12
"""Limit on the epochs or steps of a run; a larger number can only be a mistake."""


class Inconsistency(Exception):
    """A leaf that is valid by itself but contradicts others: its key, its value, and what was expected."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} is {to_yaml(value)}, expected {expected}")
        self.key, self.value, self.expected = key, value, expected


def check_consistency(study: Study) -> None:
    """Raise `Inconsistency` for the first leaf that contradicts others."""
    for inconsistency in find_inconsistencies(study):
        raise inconsistency


def find_inconsistencies(study: Study) -> Iterator[Inconsistency]:
    """Every leaf that contradicts others, in the order of the file."""
    yield from _not_finite((), study.model_dump())
    yield from _check_world(study)
    for name, task in study.tasks.items():
        yield from _invalid_name(f"tasks.{name}", name, NAME.pattern, "a name of letters, digits, `_` and `-`")
        yield from _check_task(study, f"tasks.{name}", task)
    yield from _check_grids(study)
    yield from _check_training(study)
    for name, method in study.methods.items():
        yield from _check_method(study, f"methods.{name}", name, method)
    for name, model in study.models.items():
        yield from _check_model(study, f"models.{name}", name, model)
    for name, table in study.tables.items():
        yield from _invalid_name(f"tables.{name}", name, r"table[A-Za-z0-9_]+", "a name such as `table1`")
        yield from _unknown(f"tables.{name}.tasks", table.tasks, list(study.tasks), "task")
        yield from _repeated(f"tables.{name}.tasks", table.tasks)
        yield from _repeated(f"tables.{name}.rows", [row.name for row in study.rows_of(table.rows)])
        for row in study.rows_of(table.rows):
            yield from _check_row(study, f"tables.{name}.rows", row, table.tasks)
        yield from _check_titles(study, f"tables.{name}.rows", table.rows)
    for name, figure in study.figures.items():
        yield from _invalid_name(f"figures.{name}", name, r"figure[A-Za-z0-9_]+", "a name such as `figure2`")
        yield from _check_figure(study, f"figures.{name}", figure)


def _check_world(study: Study) -> Iterator[Inconsistency]:
    world = study.world
    for key, names in (("world.styles", world.styles), ("world.objects", world.objects)):
        yield from _repeated(key, names)
        for name in names:
            yield from _invalid_name(key, name, NAME.pattern, "names of letters, digits, `_` and `-`")
        if not names:
            yield Inconsistency(key, names, "at least one name")
    yield from _unknown("prompts.photo_style", [study.prompts.photo_style], world.styles, "style of the world")
    if world.kind == "miniature":
        yield from _check_miniature(study, world)
    else:
        yield from _check_unlearn_canvas(study, world)
    factor = 2 ** (len(world.autoencoder.channels) - 1) if world.kind == "miniature" else 8
    for key, resolution in _resolutions(study).items():
        if resolution % factor:
            yield Inconsistency(key, resolution, f"a multiple of {factor}, by which the autoencoder divides it")


def _check_unlearn_canvas(study: Study, world: UnlearnCanvasWorld) -> Iterator[Inconsistency]:
    if study.fid.mode == "benchmark" and world.assets.inception_torchvision is None:
        expected = "the file of torchvision's Inception, which fid.mode: benchmark needs"
        yield Inconsistency("world.assets.inception_torchvision", None, expected)
    for key, names in (("world.styles", world.styles), ("world.objects", world.objects)):
        for name, expected in zip(names, sorted(names), strict=True):
            if name != expected:
                yield Inconsistency(key, name, f"{expected} here: the classifiers' classes are in alphabetical order")


def _check_miniature(study: Study, world: MiniatureWorld) -> Iterator[Inconsistency]:
    from corelib.worlds.miniature.drawing import OBJECTS, STYLES  # imported here: the paper's world needs no renderer

    drawn = [style for style in world.styles if style != study.prompts.photo_style]
    yield from _unknown("world.styles", drawn, list(STYLES), "style that can be drawn")
    yield from _unknown("world.objects", world.objects, list(OBJECTS), "object that can be drawn")
    if world.images_per_cell <= world.classifier.held_out_per_cell:
        yield Inconsistency(
            "world.classifier.held_out_per_cell",
            world.classifier.held_out_per_cell,
            f"fewer than world.images_per_cell ({world.images_per_cell})",
        )
    for part, channels in (("autoencoder", world.autoencoder.channels), ("denoiser", world.denoiser.channels)):
        if not channels:
            yield Inconsistency(f"world.{part}.channels", channels, "at least one level")
    width, heads = world.text_encoder.width, world.text_encoder.heads
    if width % heads:
        yield Inconsistency("world.text_encoder.heads", heads, f"a divisor of world.text_encoder.width ({width})")
    head_width = world.denoiser.attention_head_width
    if any(channels % head_width for channels in world.denoiser.channels):
        yield Inconsistency(
            "world.denoiser.attention_head_width",
            head_width,
            f"a divisor of every entry of world.denoiser.channels ({world.denoiser.channels})",
        )
    if study.gate is not None:
        yield Inconsistency("gate", study.gate, "null: the paper's numbers belong to another world")
    if study.fid.mode == "benchmark":
        yield Inconsistency("fid.mode", "benchmark", "clean: the miniature has no Inception network")
    for key, resolution in _resolutions(study).items():
        if resolution != world.resolution:
            yield Inconsistency(key, resolution, f"the miniature's world.resolution ({world.resolution})")


def _resolutions(study: Study) -> dict[str, int]:
    return {"encoding.resolution": study.encoding.resolution, "sampling.resolution": study.sampling.resolution}


def _check_task(study: Study, key: str, task: Task) -> Iterator[Inconsistency]:
    styles, objects = study.world.styles, study.world.objects
    retain = [] if isinstance(task.retain, str) else task.retain
    named = {"forget": task.forget, "retain": retain, "evaluation.retain": task.evaluation.retain}
    for leaf, names in named.items():
        yield from _unknown(f"{key}.{leaf}", names, styles, "style of the world")
        yield from _repeated(f"{key}.{leaf}", names)
    if study.prompts.photo_style in task.forget:
        yield Inconsistency(f"{key}.forget", study.prompts.photo_style, "styles other than the photos")
    if study.prompts.photo_style in retain and len(retain) > 1:
        yield Inconsistency(f"{key}.retain", study.prompts.photo_style, "`photos_in_retain: true` for the photos")
    for leaf in ("retain", "evaluation.retain"):
        if overlap := [style for style in named[leaf] if style in task.forget]:
            yield Inconsistency(f"{key}.{leaf}", overlap[0], f"styles that are not in {key}.forget")
    for leaf, selected in (("objects", task.objects), ("evaluation.objects", task.evaluation.objects)):
        if selected != "all":
            yield from _unknown(f"{key}.{leaf}", list(selected), objects, "object of the world")
            yield from _repeated(f"{key}.{leaf}", list(selected))
        if not selected:
            yield Inconsistency(f"{key}.{leaf}", selected, "`all` or at least one object")
    if not task.evaluation.retain:
        yield Inconsistency(f"{key}.evaluation.retain", [], "at least one style")
    cells = len(task.evaluation.retain) * len(study.objects_of(task.evaluation.objects))
    if cells * min(len(task.evaluation.seeds), len(study.fid.reference_images)) == 1:
        yield Inconsistency(
            f"{key}.evaluation.retain", task.evaluation.retain, "at least two images in the retain cells, for FID"
        )
    if not study.retain_set(task):
        yield Inconsistency(f"{key}.retain", task.retain, "at least one style that is not forgotten")
    yield from _repeated(f"{key}.evaluation.seeds", task.evaluation.seeds)


def _check_grids(study: Study) -> Iterator[Inconsistency]:
    """The original model samples the images of all tasks together, and those generated for the anchors of a task."""
    generates = any(method.objective.unlearn.images == "generated" for method in study.methods.values())
    total = 0
    for name, task in study.tasks.items():
        seeds, styles = task.evaluation.seeds, len(task.forget) + len(task.evaluation.retain)
        total += styles * len(study.objects_of(task.evaluation.objects)) * len(seeds)
        if total > MAX_IMAGES:
            expected = f"fewer: the tasks up to this one need {total:,} images; the maximum is {MAX_IMAGES:,}"
            yield Inconsistency(f"tasks.{name}.evaluation.seeds", len(seeds), expected)
        anchors = len(study.retain_styles(task)) * len(study.objects_of(task.objects))
        if generates and (generated := anchors * len(study.training.images)) > MAX_IMAGES:
            expected = f"fewer: {name} needs {generated:,} generated images; the maximum is {MAX_IMAGES:,}"
            yield Inconsistency("training.images", len(study.training.images), expected)


def _check_training(study: Study) -> Iterator[Inconsistency]:
    count = study.world.images_per_cell
    for key, images in (
        ("training.images", study.training.images),
        ("fid.reference_images", study.fid.reference_images),
    ):
        yield from _repeated(key, images)
        if not images:
            yield Inconsistency(key, images, "at least one index")
        if beyond := [index for index in images if index > count]:
            yield Inconsistency(key, beyond[0], f"indices up to world.images_per_cell ({count})")
    yield from _repeated("training.seeds", study.training.seeds)
    betas = study.training.optimizer.betas
    if beyond_one := [beta for beta in betas if not 0 <= beta < 1]:
        yield Inconsistency("training.optimizer.betas", beyond_one[0], "numbers from 0 to below 1")
    if study.anchoring.base not in (FIRST_RETAIN, EMPTY_CONCEPT):
        yield from _unknown("anchoring.base", [study.anchoring.base], study.world.styles, "style of the world")
    if study.anchoring.one_to_one != "in_order":
        for forget, anchor in study.anchoring.one_to_one.items():
            key = f"anchoring.one_to_one.{forget}"
            yield from _unknown(key, [forget, anchor], study.world.styles, "style of the world")
            if forget == anchor:
                yield Inconsistency(key, anchor, "a style other than the forget style itself")


def _check_method(study: Study, key: str, name: str, method: Method) -> Iterator[Inconsistency]:
    yield from _invalid_name(key, name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    yield from _repeated(f"{key}.seeds", method.seeds or [])
    decay = study.training.optimizer.weight_decay
    if method.saliency is not None and decay > 0:  # decay would change the weights that a mask keeps
        yield Inconsistency("training.optimizer.weight_decay", decay, f"0.0, since {key} has a saliency mask")
    if name == ORIGINAL:
        yield Inconsistency("methods", ORIGINAL, "another name: this one is the model before unlearning")
    scale = study.training.scale
    if not 0 < method.learning_rate * scale.learning_rate < math.inf:
        yield Inconsistency(
            "training.scale.learning_rate",
            scale.learning_rate,
            f"a number for which the scaled {key}.learning_rate is positive and finite",
        )
    for task, length in method.length.items():
        if not 0 < round((length.epochs or length.steps or 0) * scale.length, LENGTH_DECIMALS) < MAX_LENGTH:
            expected = f"a number for which the scaled {key}.length.{task} is positive and below {MAX_LENGTH:,.0f}"
            yield Inconsistency("training.scale.length", scale.length, expected)
    for leaf, tasks in (("length", list(method.length)), ("anchors", list(method.anchors))):
        yield from _unknown(f"{key}.{leaf}", tasks, list(study.tasks), "task")
    if study.training.batch_counts == "both" and method.objective.retain is not None and method.batch % 2:
        yield Inconsistency(
            f"{key}.batch", method.batch, "an even number: half the batch is retain pairs (training.batch_counts: both)"
        )


def _check_model(study: Study, key: str, name: str, model: GivenModel) -> Iterator[Inconsistency]:
    yield from _invalid_name(key, name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    if name in (ORIGINAL, *study.methods):
        yield Inconsistency("models", name, "a name that no method has")
    yield from _unknown(f"{key}.weights", list(model.weights), list(study.tasks), "task")
    for task, path in model.weights.items():
        if not path.strip() or path.startswith("~"):
            yield Inconsistency(f"{key}.weights.{task}", path, "the full path of a folder or file, without `~`")


def _check_row(study: Study, key: str, row: Row, tasks: list[str]) -> Iterator[Inconsistency]:
    yield from _invalid_name(key, row.name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    yield from _unknown(key, [row.method], [ORIGINAL, *study.methods, *study.models], "method")
    if not study.is_trained(row.method):
        words = "the original model" if row.method == ORIGINAL else f"{row.method}, which is not trained here"
        if row.anchors is not None:
            yield Inconsistency(key, row.anchors, f"no anchors for {words}")
        if row.seeds is not None:
            yield Inconsistency(key, row.seeds, f"no training seeds for {words}")
        if row.method in study.models:
            weights = study.models[row.method].weights
            for task in tasks:
                if task not in weights:
                    yield Inconsistency(f"models.{row.method}.weights", sorted(weights), f"a path for {task} ({key})")
        return
    yield from _repeated(key, row.seeds or [])
    method = study.methods[row.method]
    for task in tasks:
        if task not in method.length:
            yield Inconsistency(f"methods.{row.method}.length", sorted(method.length), f"an entry for {task} ({key})")
        if task not in method.anchors and row.anchors is None:
            yield Inconsistency(f"methods.{row.method}.anchors", sorted(method.anchors), f"an entry for {task} ({key})")
        scheme = row.anchors or method.anchors[task]
        yield from _check_anchors(study, scheme, row.method, task, f"{key}, row {row.name}")


def _check_titles(study: Study, key: str, rows: list[str | Row]) -> Iterator[Inconsistency]:
    """Rows that a reader of the table cannot tell apart, with the key at which one of them can get another title."""
    first_with: dict[str, int] = {}
    full_rows = study.rows_of(rows)
    for index, row in enumerate(full_rows):
        title = study.title_of(row)
        normalized = _normalized(title)
        if not normalized:
            yield Inconsistency(_key_of_title(key, rows, index), title, f"a title for the row {row.name} of {key}")
        first = first_with.setdefault(normalized, index)
        if first != index:
            changed, kept = (first, index) if rows[index] == ORIGINAL else (index, first)
            expected = f"another title for the row {full_rows[changed].name} of {key}"
            yield Inconsistency(
                _key_of_title(key, rows, changed),
                study.title_of(full_rows[changed]),
                f"{expected}: the row {full_rows[kept].name} has the same",
            )


def _key_of_title(key: str, rows: list[str | Row], index: int) -> str:
    """The key of a row's title: in the row, or in its method if the row is nothing but the method's name."""
    row = rows[index]
    return f"methods.{row}.title" if isinstance(row, str) else f"{key}.{index}.title"


def _normalized(title: str) -> str:
    """A title without differences that are hardly visible: case, white space, and composition of Unicode characters."""
    normal = " ".join(unicodedata.normalize("NFKC", title).casefold().split())
    return "".join(mark for mark in normal if mark.isprintable())


def _check_anchors(study: Study, scheme: Scheme, name: str, task: str, used_by: str) -> Iterator[Inconsistency]:
    base, pairs, forget = study.anchoring.base, study.anchoring.one_to_one, study.tasks[task].forget
    images = study.methods[name].objective.unlearn.images
    if isinstance(scheme, AnchorPairs):
        yield from _check_pairs(study, scheme, name, task, used_by)
        return
    if not study.retain_styles(study.tasks[task]):
        yield from _check_scheme_without_retain_styles(study, scheme, name, task, used_by)
    if scheme == "all_to_one" and base in forget:
        yield Inconsistency("anchoring.base", base, f"a style that is not in tasks.{task}.forget ({used_by})")
    if study.methods[name].objective.unlearn.shows_anchor:
        expected = f"a style: the method trains on its images, `images: {images}` ({used_by})"
        if scheme == "all_to_one" and base == EMPTY_CONCEPT:
            yield Inconsistency("anchoring.base", base, expected)
        if scheme == "empty":
            yield Inconsistency(f"methods.{name}.anchors.{task}", scheme, f"a scheme whose anchor is {expected}")
    if scheme == "one_to_one" and pairs != "in_order":
        if missing := [style for style in forget if style not in pairs]:
            yield Inconsistency("anchoring.one_to_one", sorted(pairs), f"an anchor for {missing[0]} ({used_by})")
        anchors = [pairs[style] for style in forget]
        if repeated := {anchor for anchor in anchors if anchors.count(anchor) > 1}:
            yield Inconsistency(
                "anchoring.one_to_one", min(repeated), f"distinct anchors for the forget styles ({used_by})"
            )


def _check_pairs(study: Study, scheme: AnchorPairs, name: str, task: str, used_by: str) -> Iterator[Inconsistency]:
    """Check an explicit mapping from forget style to anchor style."""
    key, unlearn = f"methods.{name}.anchors.{task}", study.methods[name].objective.unlearn
    if missing := [style for style in study.tasks[task].forget if style not in scheme]:
        yield Inconsistency(key, dict(scheme), f"an anchor for {missing[0]} ({used_by})")
    if superfluous := [style for style in scheme if style not in study.tasks[task].forget]:
        yield Inconsistency(key, superfluous[0], f"forget styles of {task} only ({used_by})")
    yield from _unknown(
        key, [anchor for anchor in scheme.values() if anchor != EMPTY_CONCEPT], study.world.styles, "style"
    )
    for style, anchor in scheme.items():
        if style == anchor:
            yield Inconsistency(f"{key}.{style}", anchor, f"a style other than the forget style itself ({used_by})")
        if anchor == EMPTY_CONCEPT and unlearn.shows_anchor:
            expected = f"a style: the method trains on its images, `images: {unlearn.images}` ({used_by})"
            yield Inconsistency(f"{key}.{style}", anchor, expected)


def _check_scheme_without_retain_styles(
    study: Study, scheme: Scheme, name: str, task: str, used_by: str
) -> Iterator[Inconsistency]:
    """Check a scheme on a D_r of photos alone: no scheme chooses these by itself, so base or pairs must name them."""
    photos, pairs = study.prompts.photo_style, study.anchoring.one_to_one
    shifted = scheme == "one_to_one" and pairs == "in_order" and len(study.tasks[task].forget) > 1
    if scheme == "all_to_one" and study.anchoring.base == FIRST_RETAIN:
        expected = f"a style such as {photos}, since D_r of {task} contains only the photos ({used_by})"
        yield Inconsistency("anchoring.base", FIRST_RETAIN, expected)
    elif scheme not in ("all_to_one", "empty") and not shifted and (scheme != "one_to_one" or pairs == "in_order"):
        expected = (
            f"a scheme that needs no retain style, such as all_to_one with anchoring.base: {photos}, since D_r of "
            f"{task} contains only the photos ({used_by})"
        )
        yield Inconsistency(f"methods.{name}.anchors.{task}", scheme, expected)


def _check_figure(study: Study, key: str, figure: Figure) -> Iterator[Inconsistency]:
    yield from _unknown(f"{key}.task", [figure.task], list(study.tasks), "task")
    for row in study.rows_of(figure.columns):
        yield from _check_row(study, f"{key}.columns", row, [figure.task])
    yield from _repeated(f"{key}.columns", [row.name for row in study.rows_of(figure.columns)])
    yield from _check_titles(study, f"{key}.columns", figure.columns)
    evaluation = study.tasks[figure.task].evaluation
    if figure.seed not in evaluation.seeds:
        yield Inconsistency(f"{key}.seed", figure.seed, f"one of the seeds of {figure.task}: {evaluation.seeds}")
    styles = study.tasks[figure.task].forget + evaluation.retain
    for prompt in figure.prompts:
        if len(prompt) != 2:
            yield Inconsistency(f"{key}.prompts", prompt, "pairs of a style and an object")
        yield from _unknown(f"{key}.prompts", prompt[:1], styles, f"style that {figure.task} evaluates")
        yield from _unknown(
            f"{key}.prompts", prompt[1:], study.objects_of(evaluation.objects), f"object that {figure.task} evaluates"
        )


def _not_finite(key: tuple[str, ...], leaf: object) -> Iterator[Inconsistency]:
    """Numbers such as `.inf`, with which no stage can compute."""
    if isinstance(leaf, float) and not math.isfinite(leaf):
        yield Inconsistency(".".join(key), leaf, "a finite number")
    entries = leaf.items() if isinstance(leaf, dict) else enumerate(leaf) if isinstance(leaf, list) else ()
    for name, value in entries:
        yield from _not_finite((*key, str(name)), value)


def _unknown(key: str, names: list[str], known: list[str], kind: str) -> Iterator[Inconsistency]:
    article = "an" if kind[0] in "aeiou" else "a"
    for name in names:
        if name not in known:
            yield Inconsistency(key, name, f"{article} {kind}: {listed(known, 8)}")


def _repeated(key: str, values: list[str] | list[int]) -> Iterator[Inconsistency]:
    for value, count in Counter[str | int](values).items():
        if count > 1:
            yield Inconsistency(key, value, "each entry once")


def _invalid_name(key: str, name: str, pattern: str, expected: str) -> Iterator[Inconsistency]:
    if not re.fullmatch(pattern, name):
        yield Inconsistency(key, name, expected)
