"""A study, typed: the whole of `config/config.yaml` after an overlay, and every check that needs more than one leaf.

The sections that stages read live in `corelib.settings`; here they are put together and related to each other.
Loading and merging the files is `corelib.studies`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from corelib.anchors import FIRST_RETAIN
from corelib.concepts import EMPTY_CONCEPT, Prompts
from corelib.settings.evaluation import FID, Classification
from corelib.settings.miniature import Autoencoder, Classifier, Denoiser, TextEncoder
from corelib.settings.precision import TrainingPrecision
from corelib.settings.sampling import Sampling
from corelib.settings.section import Section
from corelib.settings.slicing import Encoding
from corelib.settings.trained import Trained
from corelib.settings.unlearn_canvas import Assets
from corelib.settings.unlearning import DIGITS, Adam, Length, Objective, Saliency

ORIGINAL = "original"
"""The row of the model before any unlearning."""

Scheme = Literal["one_to_one", "all_to_one", "five_to_one", "one_to_all", "one_to_five", "empty"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""What a style, object, task, method or table may be called: names become parts of paths."""


MOST_NAMES = 1_000
"""Styles or objects of a world, and rows or tasks of a table; the paper's have 51, 20, 9 and 3."""

MOST_IMAGES = 100_000
"""That one model may be asked for; the paper's original model has 1,140. They are listed in a specification, which with
names as long as those of files can be has to be one that `corelib.artefacts` reads."""

LONGEST = 1e12
"""Epochs or steps of a run, beyond which a number can only be a mistake."""


def shown(value: object) -> str:
    """A value as YAML spells it, cut where it is long."""
    text = _in_yaml(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _in_yaml(value: object) -> str:
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{', '.join(map(_in_yaml, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {_in_yaml(below)}' for name, below in value.items())}}}"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        case _:
            return repr(value)


class Contradiction(Exception):
    """A leaf that is well formed but does not go with the others: where, what it is, what was expected."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        super().__init__(f"{key} is {shown(value)}, expected {expected}")
        self.key, self.value, self.expected = key, value, expected


class UnlearnCanvasWorld(Section):
    """The paper's world: the user's assets."""

    kind: Literal["unlearn_canvas"]
    styles: list[str] = Field(max_length=MOST_NAMES)
    objects: list[str] = Field(max_length=MOST_NAMES)
    images_per_cell: PositiveInt
    assets: Assets


class MiniatureWorld(Section):
    """A world that renders its own benchmark and trains its own models, or takes those that the repository ships."""

    kind: Literal["miniature"]
    pretrained: bool
    styles: list[str] = Field(max_length=MOST_NAMES)
    objects: list[str] = Field(max_length=MOST_NAMES)
    images_per_cell: PositiveInt
    seed: int = Field(ge=0)
    resolution: PositiveInt
    jpeg_quality: int = Field(ge=1, le=100)
    autoencoder: Autoencoder
    text_encoder: TextEncoder
    denoiser: Denoiser
    classifier: Classifier


World = Annotated[UnlearnCanvasWorld | MiniatureWorld, Field(discriminator="kind")]


class Evaluation(Section):
    """Which images judge a task: every listed style x object x seed."""

    retain: list[str]
    objects: Literal["all"] | list[str]
    seeds: list[NonNegativeInt] = Field(min_length=1)


class Task(Section):
    """What is forgotten, what is held on to, and what is looked at afterwards.

    Attributes:
        forget: the forget styles, in the order in which anchors are paired with them.
        retain: the training retain set D_r: "rest" is every style that is not forgotten, "evaluated" the retain styles
            of the evaluation, or a list, which may name the photos alone.
        photos_in_retain: whether the photos also belong to D_r, captioned `prompts.photo_in_training`.
        objects: the objects of the training images.
    """

    forget: list[str] = Field(min_length=1)
    retain: Literal["rest", "evaluated"] | list[str]
    photos_in_retain: bool
    objects: Literal["all"] | list[str]
    evaluation: Evaluation


class Anchoring(Section):
    """How the schemes of Table 4 choose alternative concepts (protocol, section 6).

    Attributes:
        base: the base style of all-to-one: "first_retain", a style, the photos included, or "" for the empty prompt.
        group: the size of the groups of five-to-one and one-to-five.
        draw: where a scheme is random, whether every pair of a step draws its own anchor or a step draws one.
        one_to_one: "in_order", or an explicit mapping from forget style to anchor style.
    """

    base: str
    group: PositiveInt
    draw: Literal["pair", "step"]
    one_to_one: Literal["in_order"] | dict[str, str]


class Scale(Section):
    """What a model of another size does to every method alike: its learning rate and its length are multiplied.

    Attributes:
        least_steps: no run is shorter, whatever its scaled length.
    """

    learning_rate: PositiveFloat
    length: PositiveFloat
    least_steps: PositiveInt


class TrainingProtocol(Section):
    """What all unlearning runs share."""

    images: list[PositiveInt] = Field(min_length=1)
    epoch_counts: Literal["forget", "both"]
    reduction: Literal["mean", "sum"]
    optimizer: Adam
    scale: Scale
    precision: TrainingPrecision
    seed: int = Field(ge=0)


class Method(Section):
    """One way of unlearning: an entry of this kind is all that a new method needs."""

    title: str
    objective: Objective
    saliency: Saliency | None
    trained: Trained
    learning_rate: PositiveFloat
    batch: PositiveInt
    length: dict[str, Length]
    anchors: dict[str, Scheme]


class Row(Section):
    """A row of a table that departs from its method's own anchors or title."""

    name: str
    method: str
    anchors: Scheme | None = None
    title: str | None = None


class Table(Section):
    """A table is a query over runs: for each task, the named rows."""

    tasks: list[str] = Field(min_length=1, max_length=MOST_NAMES)
    rows: list[str | Row] = Field(min_length=1, max_length=MOST_NAMES)
    published: str | None


class Figure(Section):
    """A grid of sampled images: rows are prompts, columns are methods, all of one task and one seed."""

    task: str
    prompts: list[list[str]] = Field(min_length=1)
    columns: list[str | Row] = Field(min_length=1)
    seed: NonNegativeInt
    pixels: PositiveInt


class Threads(Section):
    """CPU threads per stage; results are equal to the bit only at equal thread counts."""

    world: PositiveInt
    unlearning: PositiveInt
    sampling: PositiveInt
    evaluation: PositiveInt


class Execution(Section):
    """How the work is cut and saved; changes no result and no address."""

    batches_per_shard: PositiveInt
    checkpoint_seconds: PositiveFloat


class Study(Section):
    """Everything that decides a set of tables and figures."""

    world: World
    prompts: Prompts
    tasks: dict[str, Task]
    training: TrainingProtocol
    encoding: Encoding
    anchoring: Anchoring
    methods: dict[str, Method]
    sampling: Sampling
    classification: Classification
    fid: FID
    gate: Literal["stop", "warn"] | None
    tables: dict[str, Table]
    figures: dict[str, Figure]
    threads: Threads
    execution: Execution

    @model_validator(mode="after")
    def _leaves_go_together(self) -> Study:
        for contradiction in contradictions_of(self):
            raise contradiction
        return self

    # What the leaves say, spelt out

    @property
    def takes_shipped_world(self) -> bool:
        """Whether the models are those that the repository ships."""
        return self.world.kind == "miniature" and self.world.pretrained

    def objects_of(self, objects: Literal["all"] | list[str]) -> list[str]:
        """The objects that a leaf names, in label order."""
        return self.world.objects if objects == "all" else sorted(objects, key=self.world.objects.index)

    def styles_in_label_order(self, styles: list[str]) -> list[str]:
        """The same styles in the order of the classifier's classes."""
        return sorted(styles, key=self.world.styles.index)

    def retain_styles(self, task: Task) -> list[str]:
        """The styles of D_r from which anchors may be chosen, in label order; the photos are never among them."""
        if task.retain == "rest":
            styles = [style for style in self.world.styles if style not in task.forget]
        elif task.retain == "evaluated":
            styles = task.evaluation.retain
        else:
            styles = task.retain
        return [style for style in self.styles_in_label_order(styles) if style != self.prompts.photo_style]

    def retain_set(self, task: Task) -> list[str]:
        """All styles of D_r, the photos included if the task says so, or has them alone."""
        photos = [self.prompts.photo_style]
        included = task.photos_in_retain or task.retain == photos
        return self.styles_in_label_order(self.retain_styles(task) + (photos if included else []))

    def rows_of(self, rows: list[str | Row]) -> list[Row]:
        """Rows written as a method's name alone, spelt out."""
        return [Row(name=row, method=row) if isinstance(row, str) else row for row in rows]

    def title_of(self, row: Row) -> str:
        """What a row is called in a table or figure."""
        if row.title is not None:
            return row.title
        return "Original" if row.method == ORIGINAL else self.methods[row.method].title


def contradictions_of(study: Study) -> Iterator[Contradiction]:
    """Every pair of leaves that cannot both be meant, in the order of the file."""
    yield from _not_finite((), study.model_dump())
    yield from _contradictions_of_the_world(study)
    for name, task in study.tasks.items():
        yield from _not_a_name(f"tasks.{name}", name, NAME.pattern, "a name of letters, digits, `_` and `-`")
        yield from _contradictions_of_a_task(study, f"tasks.{name}", task)
    yield from _contradictions_of_the_grids(study)
    yield from _contradictions_of_training(study)
    for name, method in study.methods.items():
        yield from _contradictions_of_a_method(study, f"methods.{name}", name, method)
    for name, table in study.tables.items():
        yield from _not_a_name(f"tables.{name}", name, r"table[A-Za-z0-9_]+", "a name such as `table1`")
        yield from _unknown(f"tables.{name}.tasks", table.tasks, list(study.tasks), "task")
        yield from _repeated(f"tables.{name}.tasks", table.tasks)
        yield from _repeated(f"tables.{name}.rows", [row.name for row in study.rows_of(table.rows)])
        for row in study.rows_of(table.rows):
            yield from _contradictions_of_a_row(study, f"tables.{name}.rows", row, table.tasks)
        yield from _contradictions_of_titles(study, f"tables.{name}.rows", table.rows)
    for name, figure in study.figures.items():
        yield from _not_a_name(f"figures.{name}", name, r"figure[A-Za-z0-9_]+", "a name such as `figure2`")
        yield from _contradictions_of_a_figure(study, f"figures.{name}", figure)


def _contradictions_of_the_world(study: Study) -> Iterator[Contradiction]:
    world = study.world
    for key, names in (("world.styles", world.styles), ("world.objects", world.objects)):
        yield from _repeated(key, names)
        for name in names:
            yield from _not_a_name(key, name, NAME.pattern, "names of letters, digits, `_` and `-`")
        if not names:
            yield Contradiction(key, names, "at least one name")
    yield from _unknown("prompts.photo_style", [study.prompts.photo_style], world.styles, "style of the world")
    if world.kind == "miniature":
        yield from _contradictions_of_the_miniature(study, world)
    else:
        yield from _contradictions_of_the_papers_world(study, world)
    shrinks = 2 ** (len(world.autoencoder.channels) - 1) if world.kind == "miniature" else 8
    for key, resolution in _resolutions(study).items():
        if resolution % shrinks:
            yield Contradiction(key, resolution, f"a multiple of {shrinks}, by which the autoencoder divides it")


def _contradictions_of_the_papers_world(study: Study, world: UnlearnCanvasWorld) -> Iterator[Contradiction]:
    if study.fid.mode == "benchmark" and world.assets.inception_torchvision is None:
        expected = "the file of torchvision's Inception, which fid.mode: benchmark asks for"
        yield Contradiction("world.assets.inception_torchvision", None, expected)
    for key, names in (("world.styles", world.styles), ("world.objects", world.objects)):
        for name, expected in zip(names, sorted(names), strict=True):
            if name != expected:
                yield Contradiction(key, name, f"{expected} there: the classifiers' classes are in alphabetical order")


def _contradictions_of_the_miniature(study: Study, world: MiniatureWorld) -> Iterator[Contradiction]:
    from corelib.worlds.rendering import OBJECTS, STYLES  # here: the paper's world needs no renderer

    drawn = [style for style in world.styles if style != study.prompts.photo_style]
    yield from _unknown("world.styles", drawn, list(STYLES), "style that can be drawn")
    yield from _unknown("world.objects", world.objects, list(OBJECTS), "object that can be drawn")
    if world.images_per_cell <= world.classifier.held_out_per_cell:
        yield Contradiction(
            "world.classifier.held_out_per_cell",
            world.classifier.held_out_per_cell,
            f"fewer than world.images_per_cell ({world.images_per_cell})",
        )
    for part, channels in (("autoencoder", world.autoencoder.channels), ("denoiser", world.denoiser.channels)):
        if not channels:
            yield Contradiction(f"world.{part}.channels", channels, "at least one level")
    width, heads = world.text_encoder.width, world.text_encoder.heads
    if width % heads:
        yield Contradiction("world.text_encoder.heads", heads, f"a divisor of world.text_encoder.width ({width})")
    head_width = world.denoiser.attention_head_width
    if any(channels % head_width for channels in world.denoiser.channels):
        yield Contradiction(
            "world.denoiser.attention_head_width",
            head_width,
            f"a divisor of every entry of world.denoiser.channels ({world.denoiser.channels})",
        )
    if study.gate is not None:
        yield Contradiction("gate", study.gate, "null: the paper's numbers are of another world")
    if study.fid.mode == "benchmark":
        yield Contradiction("fid.mode", "benchmark", "clean: the miniature has no Inception network")
    for key, resolution in _resolutions(study).items():
        if resolution != world.resolution:
            yield Contradiction(key, resolution, f"the miniature's own world.resolution ({world.resolution})")


def _resolutions(study: Study) -> dict[str, int]:
    return {"encoding.resolution": study.encoding.resolution, "sampling.resolution": study.sampling.resolution}


def _contradictions_of_a_task(study: Study, key: str, task: Task) -> Iterator[Contradiction]:
    styles, objects = study.world.styles, study.world.objects
    retain = [] if isinstance(task.retain, str) else task.retain
    named = {"forget": task.forget, "retain": retain, "evaluation.retain": task.evaluation.retain}
    for leaf, names in named.items():
        yield from _unknown(f"{key}.{leaf}", names, styles, "style of the world")
        yield from _repeated(f"{key}.{leaf}", names)
    if study.prompts.photo_style in task.forget:
        yield Contradiction(f"{key}.forget", study.prompts.photo_style, "styles other than the photos")
    if study.prompts.photo_style in retain and len(retain) > 1:
        yield Contradiction(f"{key}.retain", study.prompts.photo_style, "`photos_in_retain: true` for the photos")
    for leaf in ("retain", "evaluation.retain"):
        if overlap := [style for style in named[leaf] if style in task.forget]:
            yield Contradiction(f"{key}.{leaf}", overlap[0], f"styles that {key}.forget does not name")
    for leaf, chosen in (("objects", task.objects), ("evaluation.objects", task.evaluation.objects)):
        if chosen != "all":
            yield from _unknown(f"{key}.{leaf}", list(chosen), objects, "object of the world")
            yield from _repeated(f"{key}.{leaf}", list(chosen))
        if not chosen:
            yield Contradiction(f"{key}.{leaf}", chosen, "`all` or at least one object")
    if not task.evaluation.retain:
        yield Contradiction(f"{key}.evaluation.retain", [], "at least one style")
    cells = len(task.evaluation.retain) * len(study.objects_of(task.evaluation.objects))
    if cells * min(len(task.evaluation.seeds), len(study.fid.reference_images)) == 1:
        yield Contradiction(
            f"{key}.evaluation.retain", task.evaluation.retain, "at least two images in the retain cells, for FID"
        )
    if not study.retain_set(task):
        yield Contradiction(f"{key}.retain", task.retain, "at least one style that is not forgotten")
    yield from _repeated(f"{key}.evaluation.seeds", task.evaluation.seeds)


def _contradictions_of_the_grids(study: Study) -> Iterator[Contradiction]:
    """The original model is sampled for all tasks together, and for the anchors of which images are generated."""
    generates = any(method.objective.unlearn.images == "generated" for method in study.methods.values())
    judged = 0
    for name, task in study.tasks.items():
        seeds, styles = task.evaluation.seeds, len(task.forget) + len(task.evaluation.retain)
        judged += styles * len(study.objects_of(task.evaluation.objects)) * len(seeds)
        if judged > MOST_IMAGES:
            expected = f"so few that {judged:,} images, with those of the tasks before it, become {MOST_IMAGES:,}"
            yield Contradiction(f"tasks.{name}.evaluation.seeds", len(seeds), expected)
        anchors = len(study.retain_styles(task)) * len(study.objects_of(task.objects))
        if generates and (generated := anchors * len(study.training.images)) > MOST_IMAGES:
            expected = f"so few that {generated:,} images generated for {name} become {MOST_IMAGES:,}"
            yield Contradiction("training.images", len(study.training.images), expected)


def _contradictions_of_training(study: Study) -> Iterator[Contradiction]:
    count = study.world.images_per_cell
    for key, images in (
        ("training.images", study.training.images),
        ("fid.reference_images", study.fid.reference_images),
    ):
        yield from _repeated(key, images)
        if not images:
            yield Contradiction(key, images, "at least one index")
        if beyond := [index for index in images if index > count]:
            yield Contradiction(key, beyond[0], f"indices up to world.images_per_cell ({count})")
    betas = study.training.optimizer.betas
    if beyond_one := [beta for beta in betas if not 0 <= beta < 1]:
        yield Contradiction("training.optimizer.betas", beyond_one[0], "numbers from 0 to below 1")
    if study.anchoring.base not in (FIRST_RETAIN, EMPTY_CONCEPT):
        yield from _unknown("anchoring.base", [study.anchoring.base], study.world.styles, "style of the world")
    if study.anchoring.one_to_one != "in_order":
        for forget, anchor in study.anchoring.one_to_one.items():
            key = f"anchoring.one_to_one.{forget}"
            yield from _unknown(key, [forget, anchor], study.world.styles, "style of the world")
            if forget == anchor:
                yield Contradiction(key, anchor, "a style other than the forget style itself")


def _contradictions_of_a_method(study: Study, key: str, name: str, method: Method) -> Iterator[Contradiction]:
    yield from _not_a_name(key, name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    decay = study.training.optimizer.weight_decay
    if method.saliency is not None and decay > 0:  # decay moves the weights that a mask keeps
        yield Contradiction("training.optimizer.weight_decay", decay, f"0.0, since {key} has a saliency mask")
    if name == ORIGINAL:
        yield Contradiction("methods", ORIGINAL, "another name: this one is the model before unlearning")
    scale = study.training.scale
    if not 0 < method.learning_rate * scale.learning_rate < math.inf:
        yield Contradiction(
            "training.scale.learning_rate", scale.learning_rate, f"a number that leaves {key}.learning_rate one"
        )
    for task, length in method.length.items():
        if not 0 < round((length.epochs or length.steps or 0) * scale.length, DIGITS) < LONGEST:
            expected = f"a number that leaves {key}.length.{task} one, below {LONGEST:,.0f}"
            yield Contradiction("training.scale.length", scale.length, expected)
    for leaf, tasks in (("length", list(method.length)), ("anchors", list(method.anchors))):
        yield from _unknown(f"{key}.{leaf}", tasks, list(study.tasks), "task")
    if study.training.epoch_counts == "both" and method.objective.retain is not None and method.batch % 2:
        yield Contradiction(
            f"{key}.batch", method.batch, "an even number: half of it are retain pairs (training.epoch_counts: both)"
        )


def _contradictions_of_a_row(study: Study, key: str, row: Row, tasks: list[str]) -> Iterator[Contradiction]:
    yield from _not_a_name(key, row.name, NAME.pattern, "a name of letters, digits, `_` and `-`")
    yield from _unknown(key, [row.method], [ORIGINAL, *study.methods], "method")
    if row.method == ORIGINAL:
        if row.anchors is not None:
            yield Contradiction(key, row.anchors, "no anchors for the original model")
        return
    method = study.methods[row.method]
    for task in tasks:
        if task not in method.length:
            yield Contradiction(f"methods.{row.method}.length", sorted(method.length), f"an entry for {task} ({key})")
        if task not in method.anchors and row.anchors is None:
            yield Contradiction(f"methods.{row.method}.anchors", sorted(method.anchors), f"an entry for {task} ({key})")
        scheme = row.anchors or method.anchors[task]
        yield from _contradictions_of_anchors(study, scheme, row.method, task, f"{key}, row {row.name}")


def _contradictions_of_titles(study: Study, key: str, rows: list[str | Row]) -> Iterator[Contradiction]:
    """Rows that a reader of the table cannot tell apart, and the key that would give one of them another title."""
    known: dict[str, int] = {}
    spelt_out = study.rows_of(rows)
    for place, row in enumerate(spelt_out):
        title = study.title_of(row)
        seen = _as_read(title)
        if not seen:
            yield Contradiction(_key_of_title(key, rows, place), title, f"a title for the row {row.name} of {key}")
        first = known.setdefault(seen, place)
        if first != place:
            changed, kept = (first, place) if rows[place] == ORIGINAL else (place, first)
            expected = f"another title for the row {spelt_out[changed].name} of {key}"
            yield Contradiction(
                _key_of_title(key, rows, changed),
                study.title_of(spelt_out[changed]),
                f"{expected}: the row {spelt_out[kept].name} has this one",
            )


def _key_of_title(key: str, rows: list[str | Row], place: int) -> str:
    """Where to say the title of a row: in the row, or in the method that it names and nothing more."""
    row = rows[place]
    return f"methods.{row}.title" if isinstance(row, str) else f"{key}.{place}.title"


def _as_read(title: str) -> str:
    """A title without differences that hardly show: of case, space, and how Unicode composes characters."""
    normal = " ".join(unicodedata.normalize("NFKC", title).casefold().split())
    return "".join(mark for mark in normal if mark.isprintable())


def _contradictions_of_anchors(
    study: Study, scheme: Scheme, name: str, task: str, asked_by: str
) -> Iterator[Contradiction]:
    base, pairs, forget = study.anchoring.base, study.anchoring.one_to_one, study.tasks[task].forget
    images = study.methods[name].objective.unlearn.images
    if not study.retain_styles(study.tasks[task]):
        yield from _contradictions_without_retain_styles(study, scheme, name, task, asked_by)
    if scheme == "all_to_one" and base in forget:
        yield Contradiction("anchoring.base", base, f"a style that tasks.{task}.forget does not name ({asked_by})")
    if study.methods[name].objective.unlearn.shows_the_anchor:
        expected = f"a style: the method trains on its images, `images: {images}` ({asked_by})"
        if scheme == "all_to_one" and base == EMPTY_CONCEPT:
            yield Contradiction("anchoring.base", base, expected)
        if scheme == "empty":
            yield Contradiction(f"methods.{name}.anchors.{task}", scheme, f"a scheme whose anchor is {expected}")
    if scheme == "one_to_one" and pairs != "in_order":
        if missing := [style for style in forget if style not in pairs]:
            yield Contradiction("anchoring.one_to_one", sorted(pairs), f"an anchor for {missing[0]} ({asked_by})")
        anchors = [pairs[style] for style in forget]
        if repeated := {anchor for anchor in anchors if anchors.count(anchor) > 1}:
            yield Contradiction(
                "anchoring.one_to_one", min(repeated), f"distinct anchors for the forget styles ({asked_by})"
            )


def _contradictions_without_retain_styles(
    study: Study, scheme: Scheme, name: str, task: str, asked_by: str
) -> Iterator[Contradiction]:
    """D_r is the photos alone, which no scheme chooses by itself: the base or the pairs have to be said."""
    photos, pairs = study.prompts.photo_style, study.anchoring.one_to_one
    shifted = scheme == "one_to_one" and pairs == "in_order" and len(study.tasks[task].forget) > 1
    if scheme == "all_to_one" and study.anchoring.base == FIRST_RETAIN:
        expected = f"a style such as {photos}, since D_r of {task} has the photos and no other style ({asked_by})"
        yield Contradiction("anchoring.base", FIRST_RETAIN, expected)
    elif scheme not in ("all_to_one", "empty") and not shifted and (scheme != "one_to_one" or pairs == "in_order"):
        expected = (
            f"a scheme that needs no retain style, such as all_to_one with anchoring.base: {photos}, since D_r of "
            f"{task} has the photos and no other style ({asked_by})"
        )
        yield Contradiction(f"methods.{name}.anchors.{task}", scheme, expected)


def _contradictions_of_a_figure(study: Study, key: str, figure: Figure) -> Iterator[Contradiction]:
    yield from _unknown(f"{key}.task", [figure.task], list(study.tasks), "task")
    for row in study.rows_of(figure.columns):
        yield from _contradictions_of_a_row(study, f"{key}.columns", row, [figure.task])
    yield from _repeated(f"{key}.columns", [row.name for row in study.rows_of(figure.columns)])
    yield from _contradictions_of_titles(study, f"{key}.columns", figure.columns)
    evaluation = study.tasks[figure.task].evaluation
    if figure.seed not in evaluation.seeds:
        yield Contradiction(f"{key}.seed", figure.seed, f"one of the seeds of {figure.task}: {evaluation.seeds}")
    styles = study.tasks[figure.task].forget + evaluation.retain
    for prompt in figure.prompts:
        if len(prompt) != 2:
            yield Contradiction(f"{key}.prompts", prompt, "pairs of a style and an object")
        yield from _unknown(f"{key}.prompts", prompt[:1], styles, f"style that {figure.task} evaluates")
        yield from _unknown(
            f"{key}.prompts", prompt[1:], study.objects_of(evaluation.objects), f"object that {figure.task} evaluates"
        )


def _not_finite(key: tuple[str, ...], leaf: object) -> Iterator[Contradiction]:
    """Numbers such as `.inf`, which no stage can work with."""
    if isinstance(leaf, float) and not math.isfinite(leaf):
        yield Contradiction(".".join(key), leaf, "a finite number")
    below = leaf.items() if isinstance(leaf, dict) else enumerate(leaf) if isinstance(leaf, list) else ()
    for name, value in below:
        yield from _not_finite((*key, str(name)), value)


def _unknown(key: str, names: list[str], known: list[str], kind: str) -> Iterator[Contradiction]:
    article = "an" if kind[0] in "aeiou" else "a"
    for name in names:
        if name not in known:
            yield Contradiction(key, name, f"{article} {kind}: {_listed(known)}")


def _repeated(key: str, values: list[str] | list[int]) -> Iterator[Contradiction]:
    for value, count in Counter[str | int](values).items():
        if count > 1:
            yield Contradiction(key, value, "each entry once")


def _not_a_name(key: str, name: str, pattern: str, expected: str) -> Iterator[Contradiction]:
    if not re.fullmatch(pattern, name):
        yield Contradiction(key, name, expected)


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"
