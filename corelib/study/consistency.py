"""Checks of a study that need more than one leaf."""

from __future__ import annotations

import difflib
import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from corelib.errors import listed
from corelib.settings.given_models import GivenModel
from corelib.settings.probes import OtherWording
from corelib.settings.prompts import EMPTY_CONCEPT, fields_of
from corelib.settings.unlearning import LENGTH_DECIMALS
from corelib.study.anchors import FIRST_RETAIN
from corelib.study.schema import (
    DEFAULT,
    MAX_NAMES,
    NAME,
    ORIGINAL,
    AnchorPairs,
    Baseline,
    Figure,
    ImageFolderWorld,
    InversionProbe,
    Method,
    MiniatureWorld,
    NeighboursProbe,
    PartialDiffusionProbe,
    PrefixProbe,
    Probe,
    Relabelled,
    RelearningProbe,
    Retrained,
    Row,
    Scheme,
    Study,
    Table,
    Task,
    TaskSequence,
    UnlearnCanvasWorld,
    WordingProbe,
)
from corelib.study.wording import nearest_first, to_yaml

MAX_IMAGES = 100_000
"""Maximum number of images per model; the paper's original model has 1,140. A specification lists them, and must stay
below the size limit of `corelib.files.json_files` even with the longest names."""

MAX_CLASSES = 100_000
"""Maximum number of classes of a classifier; ImageNet has 1,000 or 21,843."""

MAX_LENGTH = 1e12
"""Limit on the epochs or steps of a run; a larger number can only be a mistake."""


class Inconsistency(Exception):
    """A leaf that is valid by itself but contradicts others: its key, its value, and what was expected."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} {self._in_words(value)}, expected {expected}")
        self.key, self.value, self.expected = key, value, expected

    def _in_words(self, value: object) -> str:
        return f"is {to_yaml(value)}"


class MissingEntry(Inconsistency):
    """A section without an entry that another part of the study needs; its value is the names of its entries."""

    def _in_words(self, value: object) -> str:
        names = [str(name) for name in value] if isinstance(value, Iterable) else []
        return f"has entries for {listed(names, 8)}" if names else "has no entries"


def find_inconsistencies(study: Study) -> list[Inconsistency]:
    """The leaves that contradict others, in the order of the file, at most one for each entry of a section.

    Checks of a section assume that those before it have passed, so the list ends with the first faulty section.
    """
    for checks in _sections(study):
        found = [inconsistency for check in checks if (inconsistency := next(check, None)) is not None]
        if found:
            return [_about_concepts(one) for one in found] if study.world.kind == "image_folder" else found
    return []


def _about_concepts(inconsistency: Inconsistency) -> Inconsistency:
    """An inconsistency in the words of a world of the user's images, which has concepts instead of styles."""
    expected = re.sub(r"(?<![\w.])style(s?)(?!\w)", r"concept\1", inconsistency.expected)
    return type(inconsistency)(inconsistency.key, inconsistency.value, expected)


def _sections(study: Study) -> Iterator[list[Iterator[Inconsistency]]]:
    """The checks of each section; each check is of one entry."""
    yield [_check_numbers(study)]
    yield [_check_world(study)]
    yield [_check_order(study, name, task) for name, task in study.tasks.items()]
    yield [_check_task(study, name, task) for name, task in study.tasks.items()]
    yield [_check_grids(study)]
    yield [
        _check_training(study),
        *(_check_method(study, f"methods.{name}", name, method) for name, method in study.methods.items()),
        *(_check_baseline(study, f"baselines.{name}", name, baseline) for name, baseline in study.baselines.items()),
        *(_check_model(study, f"models.{name}", name, model) for name, model in study.models.items()),
    ]
    yield [
        *(_check_table(study, name, table) for name, table in study.tables.items()),
        *(_check_figure(study, name, figure) for name, figure in study.figures.items()),
        *(_check_probe(study, name, probe) for name, probe in study.probes.items()),
        *(_check_sequence(study, name, sequence) for name, sequence in study.sequences.items()),
    ]


def _check_world(study: Study) -> Iterator[Inconsistency]:
    world = study.world
    styles_key = "world.concepts" if world.kind == "image_folder" else "world.styles"
    for key, names in ((styles_key, world.styles), ("world.objects", world.objects)):
        yield from _repeated(key, names)
        for name in names:
            yield from _invalid_name(key, name, NAME.pattern, "names of letters, digits, `_` and `-`")
        if not names and (key == styles_key or world.kind != "image_folder"):
            yield Inconsistency(key, names, "at least one name")
    yield from _check_prompts(study)
    if world.kind == "miniature":
        yield from _check_miniature(study, world)
    elif world.kind == "unlearn_canvas":
        yield from _check_unlearn_canvas(study, world)
    else:
        yield from _check_image_folder(study, world)
    factor = 2 ** (len(world.autoencoder.channels) - 1) if world.kind == "miniature" else 8
    for key, resolution in _resolutions(study).items():
        if resolution % factor:
            yield Inconsistency(key, resolution, f"a multiple of {factor}, by which the autoencoder divides it")


def _check_prompts(study: Study) -> Iterator[Inconsistency]:
    world, prompts = study.world, study.prompts
    if world.objects and "object" not in (fields_of(prompts.template) or ()):
        expected = "a text with the field {object} as well, since the world has objects"
        yield Inconsistency("prompts.template", prompts.template, expected)
    if not world.objects and "object" in (fields_of(prompts.template) or ()):
        expected = "a text without the field {object}, since world.objects is empty"
        yield Inconsistency("prompts.template", prompts.template, expected)
    yield from _unknown("prompts.names", list(prompts.names), world.styles, "style of the world")
    if prompts.photo_style is not None:
        yield from _unknown("prompts.photo_style", [prompts.photo_style], world.styles, "style of the world")
        for key in ("photo_in_training", "photo_in_evaluation"):
            if getattr(prompts, key) is None:
                yield Inconsistency(f"prompts.{key}", None, f"a name for {prompts.photo_style} in prompts")
    elif world.kind != "image_folder":
        yield Inconsistency("prompts.photo_style", None, "the style of the photos, a style of the world")
    if prompts.evaluation is None:
        return
    if world.objects:
        expected = "null: with world.objects, each object has a prompt, by prompts.template"
        yield Inconsistency("prompts.evaluation", prompts.evaluation, expected)
    lists = prompts.evaluation if isinstance(prompts.evaluation, dict) else {"": prompts.evaluation}
    if isinstance(prompts.evaluation, dict):
        yield from _unknown("prompts.evaluation", list(lists), world.styles, "concept of the world")
        if missing := [name for name in world.styles if name not in lists]:
            yield MissingEntry("prompts.evaluation", sorted(lists), f"a list of prompts for {missing[0]} as well")
        lengths = {name: len(templates) for name, templates in lists.items()}
        if len(set(lengths.values())) > 1:
            yield Inconsistency("prompts.evaluation", lengths, "as many prompts for each concept")
    elif common := [template for template in prompts.evaluation if not fields_of(template)]:
        yield Inconsistency("prompts.evaluation", common[0], "a text with the field {concept}, or a list per concept")
    for name, templates in lists.items():
        key = f"prompts.evaluation.{name}".rstrip(".")
        if not templates or len(templates) > MAX_NAMES:
            yield Inconsistency(key, templates, f"1 to {MAX_NAMES} prompts")
        yield from _repeated(key, templates)


def _check_image_folder(study: Study, world: ImageFolderWorld) -> Iterator[Inconsistency]:
    assets = world.assets
    if assets.clip is not None:
        for key in ("style_classifier", "object_classifier"):
            if getattr(assets, key) is not None:
                yield Inconsistency(f"world.assets.{key}", getattr(assets, key), "null, since world.assets.clip judges")
    for key, names, classes in (
        ("concept", world.concepts, world.classes.concept),
        ("object", world.objects, world.classes.object),
    ):
        if classes is None:
            continue
        yield from _repeated(f"world.classes.{key}", classes)
        if missing := [name for name in names if name not in classes]:
            yield Inconsistency(f"world.classes.{key}", classes, f"{missing[0]} among them, a {key} of the world")
        if not names:
            yield Inconsistency(f"world.classes.{key}", classes, "null, since world.objects is empty")
        if len(classes) > MAX_CLASSES:
            yield Inconsistency(f"world.classes.{key}", len(classes), f"at most {MAX_CLASSES} classes")
    if not world.objects and assets.object_classifier is not None:
        expected = "null, since world.objects is empty"
        yield Inconsistency("world.assets.object_classifier", assets.object_classifier, expected)
    if study.gate is not None:
        yield Inconsistency("gate", study.gate, "null, since the paper has no numbers for this base model")
    for name, table in study.tables.items():
        if table.published is not None:
            expected = "null, since the paper has no numbers for these images"
            yield Inconsistency(f"tables.{name}.published", table.published, expected)
    if study.fid.mode == "benchmark" and assets.inception_torchvision is None:
        expected = "the file of torchvision's Inception, which fid.mode: benchmark needs"
        yield Inconsistency("world.assets.inception_torchvision", None, expected)
    has_judge = assets.clip is not None or assets.style_classifier is not None
    has_fid = assets.inception is not None or assets.inception_torchvision is not None
    if study.tables and not has_judge and not has_fid:
        expected = "none: without a judge (world.assets.clip or style_classifier) and without world.assets.inception a "
        yield Inconsistency("tables", list(study.tables), f"{expected}table has no numbers; figures need neither")
    for key, value in assets.model_dump().items():
        if isinstance(value, str) and (not value.strip() or value.startswith("~")):
            yield Inconsistency(f"world.assets.{key}", value, "the full path of a file or folder, without `~`")


def _check_unlearn_canvas(study: Study, world: UnlearnCanvasWorld) -> Iterator[Inconsistency]:
    for key in ("image_index", "style_classifier", "object_classifier", "inception"):
        if getattr(world.assets, key) is None:
            yield Inconsistency(f"world.assets.{key}", None, "the path of a file, which the paper's world needs")
    if world.assets.clip is not None:
        yield Inconsistency("world.assets.clip", world.assets.clip, "null: the paper's world has its own classifiers")
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


def _check_order(study: Study, name: str, task: Task) -> Iterator[Inconsistency]:
    """Check that the sequence of a task has a beginning; a circle is reported at the first of its tasks."""
    if task.after is None:
        return
    key, sequence = f"tasks.{name}.after", [name]
    yield from _unknown(key, [task.after], list(study.tasks), "task")
    while (before := study.tasks[sequence[-1]].after) is not None and before in study.tasks:
        sequence.append(before)
        if before in sequence[:-1]:
            circle = sequence[sequence.index(before) :]
            if name == next(other for other in study.tasks if other in circle):
                expected = f"a task of a sequence that has a beginning; this one is a circle: {' after '.join(circle)}"
                yield Inconsistency(key, task.after, expected)
            return


def _check_task(study: Study, name: str, task: Task) -> Iterator[Inconsistency]:
    key, styles = f"tasks.{name}", study.world.styles
    yield from _invalid_name(key, name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    if name == DEFAULT:
        yield Inconsistency("tasks", name, "another name: methods use this one for tasks without an entry")
    retain = [] if isinstance(task.retain, str) else task.retain
    named = {"forget": task.forget, "retain": retain, "evaluation.retain": task.evaluation.retain}
    for leaf, names in named.items():
        yield from _unknown(f"{key}.{leaf}", names, styles, "style of the world")
        yield from _repeated(f"{key}.{leaf}", names)
    if task.photos_in_retain and study.prompts.photo_style is None:
        yield Inconsistency(f"{key}.photos_in_retain", True, "false, since prompts.photo_style is null")
    if study.prompts.photo_style in task.forget:
        yield Inconsistency(f"{key}.forget", study.prompts.photo_style, "styles other than the photos")
    if study.prompts.photo_style in retain and len(retain) > 1:
        yield Inconsistency(f"{key}.retain", study.prompts.photo_style, "`photos_in_retain: true` for the photos")
    for leaf in ("retain", "evaluation.retain"):
        if overlap := [style for style in named[leaf] if style in task.forget]:
            yield Inconsistency(f"{key}.{leaf}", overlap[0], f"styles that are not in {key}.forget")
        if forgotten := [style for style in named[leaf] if style in study.forgotten_before(task)]:
            earlier = ", ".join(study.sequence_to(name)[:-1])
            expected = f"styles that no earlier task of the sequence forgets: {earlier}"
            yield Inconsistency(f"{key}.{leaf}", forgotten[0], expected)
    for leaf, selected, known, kind in (
        ("objects", task.objects, study.training_objects, "object of the world"),
        ("evaluation.objects", task.evaluation.objects, study.evaluated_objects, _kind_of_evaluated(study)),
    ):
        if selected != "all":
            yield from _unknown(f"{key}.{leaf}", list(selected), known, kind)
            yield from _repeated(f"{key}.{leaf}", list(selected))
        if not selected:
            yield Inconsistency(f"{key}.{leaf}", selected, "`all` or at least one object")
    if not task.evaluation.retain:
        yield Inconsistency(f"{key}.evaluation.retain", [], "at least one style")
    sampled = len(study.objects_of_evaluation(task)) * len(task.evaluation.seeds)
    real = len(study.objects_of_reference(task)) * len(study.full_fid.reference_images)
    if len(task.evaluation.retain) * min(sampled, real) == 1:
        yield Inconsistency(
            f"{key}.evaluation.retain", task.evaluation.retain, "at least two images in the retain cells, for FID"
        )
    if not study.retain_set(task):
        yield Inconsistency(f"{key}.retain", task.retain, "at least one style that is not forgotten")
    yield from _repeated(f"{key}.evaluation.seeds", task.evaluation.seeds)


def _kind_of_evaluated(study: Study, kind: str = "object of the world") -> str:
    """What the second part of the name of a sampled image is, in words."""
    return kind if study.world.objects else "prompt of prompts.evaluation"


def _check_grids(study: Study) -> Iterator[Inconsistency]:
    """The original model samples the images of all tasks together, and those generated for the anchors of a task."""
    generates = any(method.objective.unlearn.images == "generated" for method in study.methods.values())
    total = 0
    for name, task in study.tasks.items():
        seeds, styles = task.evaluation.seeds, study.evaluated_styles(task)
        total += len(styles) * len(study.objects_of_evaluation(task)) * len(seeds)
        if total > MAX_IMAGES:
            expected = f"fewer: the tasks up to this one need {total:,} images; the maximum is {MAX_IMAGES:,}"
            yield Inconsistency(f"tasks.{name}.evaluation.seeds", len(seeds), expected)
        anchors = len(study.retain_styles(task)) * len(study.objects_of_training(task))
        if generates and (generated := anchors * len(study.training_images)) > MAX_IMAGES:
            expected = f"fewer: {name} needs {generated:,} generated images; the maximum is {MAX_IMAGES:,}"
            yield Inconsistency("training.images", len(study.training_images), expected)


def _check_training(study: Study) -> Iterator[Inconsistency]:
    count = study.world.images_per_cell
    for key, images in (
        ("training.images", study.training_images),
        ("fid.reference_images", study.full_fid.reference_images),
    ):
        yield from _repeated(key, images)
        if not images:
            yield Inconsistency(key, images, "at least one index")
        if beyond := [index for index in images if index > count]:
            yield Inconsistency(key, beyond[0], f"indices up to world.images_per_cell ({count})")
    yield from _repeated("training.seeds", study.training.seeds)
    yield from _repeated("distances.timesteps", study.distances.timesteps)
    if not study.distances.timesteps:
        yield Inconsistency("distances.timesteps", [], "at least one timestep")
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
        yield from _unknown(f"{key}.{leaf}", tasks, [*study.tasks, DEFAULT], "task")
    if study.training.batch_counts == "both" and method.objective.retain is not None and method.batch % 2:
        yield Inconsistency(
            f"{key}.batch", method.batch, "an even number: half the batch is retain pairs (training.batch_counts: both)"
        )


def _check_baseline(study: Study, key: str, name: str, baseline: Baseline) -> Iterator[Inconsistency]:
    yield from _invalid_name(key, name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    if name in (ORIGINAL, *study.methods):
        yield Inconsistency("baselines", name, "a name that no method has")
    if isinstance(baseline, Retrained):
        yield from _repeated(f"{key}.seeds", baseline.seeds or [])
    else:
        yield from _unknown(f"{key}.anchors", list(baseline.anchors), [*study.tasks, DEFAULT], "task")


def _check_model(study: Study, key: str, name: str, model: GivenModel) -> Iterator[Inconsistency]:
    yield from _invalid_name(key, name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    if name in (ORIGINAL, *study.methods, *study.baselines):
        yield Inconsistency("models", name, "a name that no method and no baseline has")
    yield from _unknown(f"{key}.weights", list(model.weights), list(study.tasks), "task")
    for task, path in model.weights.items():
        if not path.strip() or path.startswith("~"):
            yield Inconsistency(f"{key}.weights.{task}", path, "the full path of a folder or file, without `~`")


def _check_row(study: Study, key: str, row: Row, tasks: list[str]) -> Iterator[Inconsistency]:
    yield from _invalid_name(key, row.name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    known = [ORIGINAL, *study.methods, *study.baselines, *study.models]
    yield from _unknown(key, [row.method], known, "method")
    words = "the original model" if row.method == ORIGINAL else row.method
    if not study.has_anchors(row.method) and row.anchors is not None:
        yield Inconsistency(key, row.anchors, f"no anchors for {words}, which has none")
    if not study.has_seeds(row.method) and row.seeds is not None:
        yield Inconsistency(key, row.seeds, f"no training seeds for {words}, which is not trained here")
    yield from _repeated(key, row.seeds or [])
    if isinstance(study.baselines.get(row.method), Retrained) and study.world.kind != "miniature":
        expected = "a row that can be built: only the miniature's base model can be trained again without some styles"
        yield Inconsistency(key, row.name, expected)
    for task in tasks:
        if row.method in study.models and task not in (weights := study.models[row.method].weights):
            expected = f"a path for {task}, which {key} needs"
            yield MissingEntry(f"models.{row.method}.weights", sorted(weights), expected)
        if isinstance(row.anchors, AnchorPairs) and (before := study.tasks[task].after) is not None:
            entries = f"{study.section_of(row.method)}.{row.method}.anchors"
            expected = f"a scheme by its name, since {task} is after {before}; {entries} may have pairs for each task"
            yield Inconsistency(key, dict(row.anchors), expected)
    for task in dict.fromkeys(name for last in tasks for name in study.sequence_to(last)):
        if row.method in study.methods and study.length_of(row.method, task) is None:
            lengths = sorted(study.methods[row.method].length)
            expected = f"an entry for {task}, which {key} needs, or for `{DEFAULT}`"
            yield MissingEntry(f"methods.{row.method}.length", lengths, expected)
        if study.has_anchors(row.method):
            yield from _check_anchors_of_row(study, key, row, task)


def _check_anchors_of_row(study: Study, key: str, row: Row, task: str) -> Iterator[Inconsistency]:
    scheme, used_by = row.anchors or study.anchors_of(row.method, task), f"{key}, row {row.name}"
    entries = f"{study.section_of(row.method)}.{row.method}.anchors"
    if scheme is None:
        known = sorted(study.anchor_entries(row.method))
        yield MissingEntry(entries, known, f"an entry for {task}, which {key} needs, or for `{DEFAULT}`")
        return
    if isinstance(study.baselines.get(row.method), Relabelled) and scheme in ("one_to_all", "one_to_five"):
        expected = f"a scheme with one anchor for each style, whose prompt takes the style's place ({used_by})"
        yield Inconsistency(f"{entries}.{task}", scheme, expected)
        return
    yield from _check_anchors(study, scheme, row.method, task, used_by)


def _check_table(study: Study, name: str, table: Table) -> Iterator[Inconsistency]:
    key = f"tables.{name}"
    yield from _invalid_name(key, name, r"table[A-Za-z0-9_]+", "a name such as `table1`")
    yield from _check_rows_of_tasks(study, key, table)
    if study.retrained_row(table) is not None and study.distances.image not in study.training_images:
        known = listed([str(index) for index in study.training_images], 8)
        yield Inconsistency("distances.image", study.distances.image, f"one of training.images: {known} ({key})")


def _check_rows_of_tasks(study: Study, key: str, query: Table | Probe | TaskSequence) -> Iterator[Inconsistency]:
    """Check the tasks of a table, probe or sequence, and its rows for each of them."""
    yield from _unknown(f"{key}.tasks", query.tasks, list(study.tasks), "task")
    yield from _repeated(f"{key}.tasks", query.tasks)
    yield from _repeated(f"{key}.rows", [row.name for row in study.rows_of(query.rows)])
    for row in study.rows_of(query.rows):
        yield from _check_row(study, f"{key}.rows", row, query.tasks)
    yield from _check_titles(study, f"{key}.rows", query.rows)


def _check_titles(study: Study, key: str, rows: list[str | Row]) -> Iterator[Inconsistency]:
    """Rows that a reader of the table cannot tell apart, with the key at which one of them can get another title."""
    first_with: dict[str, int] = {}
    full_rows = study.rows_of(rows)
    for index, row in enumerate(full_rows):
        title = study.title_of(row)
        normalized = _normalized(title)
        if not normalized:
            yield Inconsistency(
                _key_of_title(study, key, rows, index), title, f"a title for the row {row.name} of {key}"
            )
        first = first_with.setdefault(normalized, index)
        if first != index:
            changed, kept = (first, index) if rows[index] == ORIGINAL else (index, first)
            expected = f"another title for the row {full_rows[changed].name} of {key}"
            yield Inconsistency(
                _key_of_title(study, key, rows, changed),
                study.title_of(full_rows[changed]),
                f"{expected}: the row {full_rows[kept].name} has the same",
            )


def _key_of_title(study: Study, key: str, rows: list[str | Row], index: int) -> str:
    """The key of a row's title: in the row, or in its method if the row is nothing but the method's name."""
    row = rows[index]
    return f"{study.section_of(row)}.{row}.title" if isinstance(row, str) else f"{key}.{index}.title"


def _normalized(title: str) -> str:
    """A title without differences that are hardly visible: case, white space, and composition of Unicode characters."""
    normal = " ".join(unicodedata.normalize("NFKC", title).casefold().split())
    return "".join(mark for mark in normal if mark.isprintable())


def _check_anchors(study: Study, scheme: Scheme, name: str, task: str, used_by: str) -> Iterator[Inconsistency]:
    base, pairs, forget = study.anchoring.base, study.anchoring.one_to_one, study.tasks[task].forget
    forgotten = study.forgotten_before(study.tasks[task])
    key, reason = f"{study.section_of(name)}.{name}.anchors.{task}", _reason_for_a_style(study, name)
    if isinstance(scheme, AnchorPairs):
        yield from _check_pairs(study, scheme, name, task, used_by)
        return
    if not study.retain_styles(study.tasks[task]):
        yield from _check_scheme_without_retain_styles(study, scheme, name, task, used_by)
    if scheme == "all_to_one" and base in forget:
        yield Inconsistency("anchoring.base", base, f"a style that is not in tasks.{task}.forget ({used_by})")
    if scheme == "all_to_one" and base in forgotten:
        yield Inconsistency("anchoring.base", base, f"a style that no task before {task} forgets ({used_by})")
    if reason is not None:
        expected = f"a style: {reason} ({used_by})"
        if scheme == "all_to_one" and base == EMPTY_CONCEPT:
            yield Inconsistency("anchoring.base", base, expected)
        if scheme == "empty":
            yield Inconsistency(key, scheme, f"a scheme whose anchor is {expected}")
    if scheme == "one_to_one" and pairs != "in_order":
        if missing := [style for style in forget if style not in pairs]:
            yield MissingEntry("anchoring.one_to_one", sorted(pairs), f"an anchor for {missing[0]} ({used_by})")
        anchors = [pairs[style] for style in forget]
        if lost := [style for style in forget if pairs[style] in forgotten]:
            expected = f"a style that no task before {task} forgets ({used_by})"
            yield Inconsistency(f"anchoring.one_to_one.{lost[0]}", pairs[lost[0]], expected)
        if repeated := {anchor for anchor in anchors if anchors.count(anchor) > 1}:
            yield Inconsistency(
                "anchoring.one_to_one", min(repeated), f"distinct anchors for the forget styles ({used_by})"
            )


def _reason_for_a_style(study: Study, name: str) -> str | None:
    """Why the anchors of a method or baseline must be styles, not the empty prompt; None if they need not."""
    if isinstance(study.baselines.get(name), Relabelled):
        return "its prompt takes the place of the forget style's"
    if name in study.methods and (unlearn := study.methods[name].objective.unlearn).shows_anchor:
        return f"the method trains on its images, `images: {unlearn.images}`"
    return None


def _check_pairs(study: Study, scheme: AnchorPairs, name: str, task: str, used_by: str) -> Iterator[Inconsistency]:
    """Check an explicit mapping from forget style to anchor style."""
    key, reason = f"{study.section_of(name)}.{name}.anchors.{task}", _reason_for_a_style(study, name)
    superfluous = [style for style in scheme if style not in study.tasks[task].forget]
    if missing := [style for style in study.tasks[task].forget if style not in scheme]:
        near = difflib.get_close_matches(missing[0], superfluous, n=1)
        instead = f" instead of `{near[0]}`, which is no forget style of {task}" if near else ""
        yield MissingEntry(key, scheme, f"an anchor for {missing[0]}{instead} ({used_by})")
    if superfluous:
        yield Inconsistency(key, superfluous[0], f"forget styles of {task} only ({used_by})")
    yield from _unknown(
        key, [anchor for anchor in scheme.values() if anchor != EMPTY_CONCEPT], study.world.styles, "style"
    )
    for style, anchor in scheme.items():
        if style == anchor:
            yield Inconsistency(f"{key}.{style}", anchor, f"a style other than the forget style itself ({used_by})")
        if anchor in study.forgotten_before(study.tasks[task]):
            yield Inconsistency(f"{key}.{style}", anchor, f"a style that no task before {task} forgets ({used_by})")
        if anchor == EMPTY_CONCEPT and reason is not None:
            yield Inconsistency(f"{key}.{style}", anchor, f"a style: {reason} ({used_by})")


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
        yield Inconsistency(f"{study.section_of(name)}.{name}.anchors.{task}", scheme, expected)


def _check_figure(study: Study, name: str, figure: Figure) -> Iterator[Inconsistency]:
    key = f"figures.{name}"
    yield from _invalid_name(key, name, r"figure[A-Za-z0-9_]+", "a name such as `figure2`")
    yield from _unknown(f"{key}.task", [figure.task], list(study.tasks), "task")
    for row in study.rows_of(figure.columns):
        yield from _check_row(study, f"{key}.columns", row, [figure.task])
    yield from _repeated(f"{key}.columns", [row.name for row in study.rows_of(figure.columns)])
    yield from _check_titles(study, f"{key}.columns", figure.columns)
    evaluation = study.tasks[figure.task].evaluation
    if figure.seed is not None and figure.seed not in evaluation.seeds:
        yield Inconsistency(f"{key}.seed", figure.seed, f"one of the seeds of {figure.task}: {evaluation.seeds}")
    styles = study.evaluated_styles(study.tasks[figure.task])
    for prompt in figure.prompts:
        if len(prompt) != 2:
            second = study.objects_of_evaluation(study.tasks[figure.task])[0]
            yield Inconsistency(f"{key}.prompts", prompt, f"pairs such as [{styles[0]}, {second}]")
        yield from _unknown(f"{key}.prompts", prompt[:1], styles, f"style that {figure.task} evaluates")
        yield from _unknown(
            f"{key}.prompts",
            prompt[1:],
            study.objects_of_evaluation(study.tasks[figure.task]),
            f"{_kind_of_evaluated(study, 'object')} that {figure.task} evaluates",
        )


def _check_probe(study: Study, name: str, probe: Probe) -> Iterator[Inconsistency]:
    key = f"probes.{name}"
    yield from _invalid_name(key, name, r"probe[A-Za-z0-9_]+", "a name such as `probe_wording`")
    yield from _check_judge(study, key, probe.kind)
    yield from _check_rows_of_tasks(study, key, probe)
    for task in probe.tasks:
        evaluation = study.tasks[task].evaluation
        for leaf, chosen, known in (
            ("objects", probe.objects, study.objects_of_evaluation(study.tasks[task])),
            ("seeds", probe.seeds, evaluation.seeds),
        ):
            if chosen == "evaluated":
                continue
            yield from _repeated(f"{key}.{leaf}", list(chosen))
            if not chosen:
                yield Inconsistency(f"{key}.{leaf}", chosen, f"`evaluated` or at least one of the {leaf} of {task}")
            if unknown := [entry for entry in chosen if entry not in known]:
                expected = f"one of the {leaf} that {task} evaluates: {listed([str(entry) for entry in known], 8)}"
                yield Inconsistency(f"{key}.{leaf}", unknown[0], expected)
    yield from _check_budget(study, key, probe)


def _check_judge(study: Study, key: str, value: object) -> Iterator[Inconsistency]:
    """A product that counts recognised styles needs a judge of styles."""
    world = study.world
    if world.kind == "image_folder" and world.assets.clip is None and world.assets.style_classifier is None:
        expected = "none, since no judge recognises concepts (world.assets.clip or style_classifier)"
        yield Inconsistency(key, value, expected)


def _check_sequence(study: Study, name: str, sequence: TaskSequence) -> Iterator[Inconsistency]:
    key = f"sequences.{name}"
    yield from _invalid_name(key, name, r"sequence[A-Za-z0-9_]+", "a name such as `sequence1`")
    yield from _check_judge(study, key, sequence.tasks)
    yield from _check_rows_of_tasks(study, key, sequence)
    for before, task in itertools.pairwise(sequence.tasks):
        if study.tasks[task].after != before:
            expected = f"a task that is after {before}, the step before (tasks.{task}.after: {before})"
            yield Inconsistency(f"{key}.tasks", task, expected)
    if not sequence.at_once:
        return
    yield from _unknown(f"{key}.at_once", sequence.at_once, list(study.tasks), "task")
    if len(sequence.at_once) != len(sequence.tasks):
        yield Inconsistency(f"{key}.at_once", sequence.at_once, f"{len(sequence.tasks)} tasks, one for each step")
    for row in study.rows_of(sequence.rows):
        yield from _check_row(study, f"{key}.rows", row, sequence.at_once)
    for step, task in zip(sequence.tasks, sequence.at_once, strict=True):
        yield from _check_at_once(study, f"{key}.at_once", step, task)


def _check_at_once(study: Study, key: str, step: str, name: str) -> Iterator[Inconsistency]:
    """Check that a task forgets at once what a sequence has forgotten after a step, and that both are judged alike."""
    task, last = study.tasks[name], study.tasks[step]
    if task.after is not None:
        yield Inconsistency(key, name, f"a task that is after no other; tasks.{name}.after is {task.after}")
    forgotten = [*study.forgotten_before(last), *last.forget]
    if set(task.forget) != set(forgotten):
        styles = listed(study.styles_in_label_order(forgotten), 8)
        yield Inconsistency(key, name, f"a task that forgets what the steps up to {step} forget: {styles}")
    for leaf, chosen, other in (
        ("retain", set(task.evaluation.retain), set(last.evaluation.retain)),
        ("objects", set(study.objects_of_evaluation(task)), set(study.objects_of_evaluation(last))),
        ("seeds", set(task.evaluation.seeds), set(last.evaluation.seeds)),
    ):
        if chosen != other:
            yield Inconsistency(key, name, f"a task with the evaluation.{leaf} of {step}, with which it is compared")


def _check_budget(study: Study, key: str, probe: Probe) -> Iterator[Inconsistency]:
    """Check the leaves that only one kind of probes has."""
    match probe:
        case WordingProbe(wordings=wordings):
            for name, wording in wordings.items():
                expected = "a name of letters, digits, `_` and `-`, other than `usual`"
                yield from _invalid_name(f"{key}.wordings", name, rf"(?!usual$){NAME.pattern}", expected)
                yield from _unknown(f"{key}.wordings.{name}.names", list(wording.names), study.world.styles, "style")
                if wording == OtherWording():
                    yield Inconsistency(f"{key}.wordings.{name}", {}, "a template, names, or misspelt: true")
        case PartialDiffusionProbe(levels=levels, images=images):
            yield from _repeated(f"{key}.levels", levels)
            if beyond := [level for level in levels if not 0 < level <= 1]:
                yield Inconsistency(f"{key}.levels", beyond[0], "shares of the sampling steps, above 0 and at most 1")
            yield from _repeated(f"{key}.images", images)
            if unknown := [index for index in images if index not in study.training_images]:
                yield Inconsistency(f"{key}.images", unknown[0], "indices among training.images, whose latents exist")
        case RelearningProbe(images=counts, steps=steps):
            yield from _repeated(f"{key}.images", counts)
            yield from _repeated(f"{key}.steps", steps)
            yield from _check_image_count(study, key, probe.tasks, max(counts))
        case InversionProbe(images=count, steps=steps) | PrefixProbe(images=count, steps=steps):
            yield from _repeated(f"{key}.steps", steps)
            yield from _check_image_count(study, key, probe.tasks, count)
        case NeighboursProbe(alike=alike):
            for style, others in alike.items():
                yield from _unknown(f"{key}.alike", [style], study.world.styles, "style of the world")
                yield from _unknown(f"{key}.alike.{style}", others, study.world.styles, "style of the world")


def _check_image_count(study: Study, key: str, tasks: list[str], count: int) -> Iterator[Inconsistency]:
    for task in tasks:
        available = len(study.objects_of_training(study.tasks[task])) * len(study.training_images)
        if count > available:
            expected = f"at most {available}, the training images of a style of {task}"
            yield Inconsistency(f"{key}.images", count, expected)


def _check_numbers(study: Study) -> Iterator[Inconsistency]:
    """No stage can compute with a number such as `.inf`."""
    for key, number in numbers_in(study.model_dump()):
        if isinstance(number, float) and not math.isfinite(number):
            yield Inconsistency(key, number, "a finite number")


def numbers_in(section: object, key: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a section, by their keys."""
    entries = section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ()
    for name, entry in entries:
        yield from numbers_in(entry, f"{key}.{name}" if key else str(name))
    if isinstance(section, int | float) and not isinstance(section, bool):
        yield key, section


def _unknown(key: str, names: list[str], known: list[str], kind: str) -> Iterator[Inconsistency]:
    article = "an" if kind[0] in "aeiou" else "a"
    for name in names:
        if name not in known:
            yield Inconsistency(key, name, f"{article} {kind}: {listed(nearest_first(name, known), 8)}")


def _repeated(key: str, values: Sequence[object]) -> Iterator[Inconsistency]:
    for value, count in Counter(values).items():
        if count > 1:
            yield Inconsistency(key, value, "each entry once")


def _invalid_name(key: str, name: str, pattern: str, expected: str) -> Iterator[Inconsistency]:
    if not re.fullmatch(pattern, name):
        yield Inconsistency(key, name, expected)
