"""A typed study: the whole of `config/config.yaml`, with overlays merged over it.

The sections that stages read are in `corelib.settings`; this module combines them and relates them to each other.
`corelib.study.loading` reads and merges the files; `corelib.study.consistency` has the checks of more than one leaf.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from corelib.runs.specification import Execution
from corelib.settings.assets import Assets
from corelib.settings.data import Encoding
from corelib.settings.distances import Distances
from corelib.settings.edits import Edit
from corelib.settings.evaluation import FID, Classification
from corelib.settings.given_models import GivenModel
from corelib.settings.kernels import Kernels
from corelib.settings.miniature import Autoencoder, Classifier, Denoiser, TextEncoder
from corelib.settings.objective import Objective
from corelib.settings.precision import TrainingPrecision
from corelib.settings.probes import OtherWording, Start
from corelib.settings.prompts import Prompts, fields_of
from corelib.settings.sampling import Sampling
from corelib.settings.section import Section
from corelib.settings.trainable import DeltaTensors, TrainableTensors
from corelib.settings.unlearning import Adam, Length, Saliency

ORIGINAL = "original"
"""The row of the model before unlearning."""


class AnchorPairs(dict[str, str]):
    """An explicit mapping from forget style to anchor style; "" is the empty prompt. It can be a key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(dict[str, str]))


Scheme = Literal["one_to_one", "all_to_one", "five_to_one", "one_to_all", "one_to_five", "empty"] | AnchorPairs
"""The anchors of a method or row: a scheme by its name, or an explicit mapping."""


def anchors_in_words(scheme: Scheme) -> str:
    """The name of a scheme, or "pairs", for the name of a run."""
    return "pairs" if isinstance(scheme, AnchorPairs) else scheme


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
"""The pattern of names of styles, objects, tasks, methods and tables; names become parts of paths."""

Seeds = Annotated[list[NonNegativeInt], Field(min_length=1, max_length=100)]
"""Training seeds: each is a training run of its own."""

MAX_NAMES = 1_000
"""Maximum number of styles or objects of a world, and of rows or tasks of a table; the paper's have 51, 20, 9 and 3."""


class UnlearnCanvasWorld(Section):
    """The paper's world, which consists of the user's assets.

    Attributes:
        styles: the styles, in the order of the classifier's classes.
        objects: the objects, in the order of the classifier's classes.
        images_per_cell: number of images of each style and object.
    """

    kind: Literal["unlearn_canvas"]
    styles: list[str] = Field(max_length=MAX_NAMES)
    objects: list[str] = Field(max_length=MAX_NAMES)
    images_per_cell: PositiveInt
    assets: Assets


class MiniatureWorld(Section):
    """A world that renders its own benchmark and trains its own models, or uses those that the repository ships.

    Attributes:
        pretrained: whether the study uses the shipped models; otherwise it trains its own.
        styles: the styles, in the order of the classifier's classes.
        objects: the objects, in the order of the classifier's classes.
        images_per_cell: number of images of each style and object.
        seed: seed of the drawing and of all trainings.
        resolution: side of the images, in pixels.
        jpeg_quality: quality with which the images are saved.
    """

    kind: Literal["miniature"]
    pretrained: bool
    styles: list[str] = Field(max_length=MAX_NAMES)
    objects: list[str] = Field(max_length=MAX_NAMES)
    images_per_cell: PositiveInt
    seed: int = Field(ge=0)
    resolution: PositiveInt
    jpeg_quality: int = Field(ge=1, le=100)
    autoencoder: Autoencoder
    text_encoder: TextEncoder
    denoiser: Denoiser
    classifier: Classifier


class ZeroShot(Section):
    """The texts by which CLIP recognises what an image shows.

    Attributes:
        concept: the text for a concept, with the field `{concept}`.
        object: the text for an object, with the field `{object}`.
    """

    concept: str
    object: str

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        for name, template in (("concept", self.concept), ("object", self.object)):
            if fields_of(template) != {name}:
                raise ValueError(f"texts with the field {{{name}}} and no others in `{name}`")
        return self


class Classes(Section):
    """The classes of the classifiers in the order of their outputs, if they are not the world's concepts or objects.

    Attributes:
        concept: the classes of the classifier of concepts.
        object: the classes of the classifier of objects.
    """

    concept: list[str] | None
    object: list[str] | None


class ImageFolderWorld(Section):
    """A world of the user's own images and base model (docs/your-own.md).

    Attributes:
        concepts: the concepts, each a folder of images.
        objects: the objects, folders within those of the concepts; empty if concepts have no second axis.
        images_per_cell: number of images of each concept (and object) that are used: the first ones by name.
        classes: the classes of the classifiers, among them the concepts and objects. CLIP takes them as alternatives.
        zero_shot: the texts by which CLIP recognises a concept, if `assets.clip` is the judge.
    """

    kind: Literal["image_folder"]
    concepts: list[str] = Field(max_length=MAX_NAMES)
    objects: list[str] = Field(max_length=MAX_NAMES)
    images_per_cell: PositiveInt
    classes: Classes
    zero_shot: ZeroShot
    assets: Assets

    @property
    def styles(self) -> list[str]:
        """The concepts, under the name that they have in the other worlds."""
        return self.concepts


World = Annotated[UnlearnCanvasWorld | MiniatureWorld | ImageFolderWorld, Field(discriminator="kind")]

ONLY_OBJECT = "image"
"""The object of all training images in a world without objects."""

DEFAULT = "default"
"""The key of a method's `length` and `anchors` for every task that has no entry of its own."""


class Evaluation(Section):
    """The images that judge a task: every listed style x object x seed.

    Attributes:
        retain: the retain styles.
        objects: the objects of the images.
        seeds: the seeds of the images.
    """

    retain: list[str]
    objects: Literal["all"] | list[str] = "all"
    seeds: list[NonNegativeInt] = Field(min_length=1)


class Task(Section):
    """The styles to forget, the styles to retain, and the images on which the model is evaluated afterwards.

    Attributes:
        forget: the forget styles, in the order in which anchors are paired with them.
        retain: the training retain set D_r: "rest" for every style that neither this task nor an earlier one of its
            sequence forgets, "evaluated" for the retain styles of the evaluation, or a list, which may contain the
            photos alone.
        photos_in_retain: whether the photos also belong to D_r, captioned `prompts.photo_in_training`.
        objects: the objects of the training images.
        after: the task after which this one comes in a sequence: its models start from those of that task. Null for
            the model before unlearning.
    """

    forget: list[str] = Field(min_length=1)
    retain: Literal["rest", "evaluated"] | list[str] = "rest"
    photos_in_retain: bool = False
    objects: Literal["all"] | list[str] = "all"
    after: str | None = None
    evaluation: Evaluation


class Anchoring(Section):
    """Settings of the schemes of Table 4, which choose alternative concepts (protocol, section 6).

    Attributes:
        base: the base style of all-to-one: "first_retain", a style, the photos included, or "" for the empty prompt.
        group: the size of the groups of five-to-one and one-to-five.
        draw: for random schemes, whether each pair of a step draws its own anchor or all pairs of a step share one.
        one_to_one: "in_order", or an explicit mapping from forget style to anchor style.
    """

    base: str
    group: PositiveInt
    draw: Literal["pair", "step"]
    one_to_one: Literal["in_order"] | dict[str, str]


class Scale(Section):
    """Factors for a model of another size, the same for every method: on its learning rate and on its length.

    Attributes:
        learning_rate: factor of every learning rate.
        length: factor of every length.
        min_steps: minimum number of steps of a run, whatever its scaled length.
    """

    learning_rate: PositiveFloat
    length: PositiveFloat
    min_steps: PositiveInt


class FIDProtocol(Section):
    """Frechet distance between sampled and real images of the retain cells; `Study.full_fid` has the indices of `all`.

    Attributes:
        mode: image handling, as in `corelib.settings.evaluation.FID`.
        reference_images: indices of the real images of each retain cell, or all of the world's.
        batch: batch size of the network.
    """

    mode: Literal["clean", "legacy_tensorflow", "benchmark"]
    reference_images: Literal["all"] | list[PositiveInt]
    batch: PositiveInt


class TrainingProtocol(Section):
    """The settings that all unlearning runs share.

    Attributes:
        images: indices of the training images of each style and object.
        batch_counts: whether the `batch` of a method is the number of forget pairs in a step, or of forget and retain
            pairs together.
        reduction: reduction of the norms over the dimensions of the latents.
        kernels: kernels of the U-Net in the stage `unlearning`.
        seeds: the training seeds. Each method and task is trained once with each of them.
    """

    images: Literal["all"] | list[PositiveInt]
    batch_counts: Literal["forget", "both"]
    reduction: Literal["mean", "sum"]
    optimizer: Adam
    scale: Scale
    precision: TrainingPrecision
    kernels: Kernels
    seeds: Seeds


class Method(Section):
    """An unlearning method; a new method needs nothing but such an entry.

    Attributes:
        title: its title in tables.
        saliency: the mask of the weights that may change; null for none.
        trained: the trained tensors.
        learning_rate: learning rate of Adam, before `training.scale`.
        batch: batch size; `training.batch_counts` defines it.
        length: length of the training run of each task, before `training.scale`.
        anchors: scheme of the anchors of each task. The entry `default` of `length` and `anchors` is that of every
            task without an entry.
        seeds: its training seeds, if they are not those of `training.seeds`.
    """

    title: str
    objective: Objective
    saliency: Saliency | None
    trained: TrainableTensors
    learning_rate: PositiveFloat
    batch: PositiveInt
    length: dict[str, Length]
    anchors: dict[str, Scheme]
    seeds: Seeds | None = None


class Edited(Section):
    """A baseline that edits the keys and values of the cross-attention in closed form, such as UCE.

    Attributes:
        title: its title in tables.
        edit: the constants of its equation.
        anchors: scheme of the anchors of each task; `default` is that of every task without an entry.
    """

    kind: Literal["edited"]
    title: str
    edit: Edit
    anchors: dict[str, Scheme]


class Relabelled(Section):
    """The original model, prompted for a style's anchor in place of the style: a bound that changes no weight.

    Attributes:
        title: its title in tables.
        anchors: scheme of the anchors of each task, one anchor for each style; `default` is that of every task without
            an entry.
    """

    kind: Literal["relabelled"]
    title: str
    anchors: dict[str, Scheme]


class Retrained(Section):
    """The gold standard: a model of the miniature that is trained from scratch without a task's forget styles.

    Attributes:
        title: its title in tables.
        seeds: its training seeds, if they are not those of `training.seeds`. They are added to the world's seed, so
            seed 0 begins with the base model's initial weights.
    """

    kind: Literal["retrained"]
    title: str
    seeds: Seeds | None


Baseline = Annotated[Edited | Relabelled | Retrained, Field(discriminator="kind")]
"""A model for comparison, without a training objective."""


def _row_name(method: str = "", anchors: Scheme | None = None) -> str:
    return f"{method}-{anchors}" if isinstance(anchors, str) else method


class Row(Section):
    """A row of a table, with anchors, a title or training seeds other than its method's.

    Attributes:
        method: the name of a method, of a baseline, of a model of the user's, or `ORIGINAL`.
        anchors: scheme of the anchors; null for the method's.
        name: name of the row, unique in its table; by default that of its method, and of its scheme if it names one.
        title: title; null for the method's.
        seeds: training seeds; null for the method's.
    """

    method: str
    anchors: Scheme | None = None
    name: str = Field(default_factory=lambda leaves: _row_name(**leaves))
    title: str | None = None
    seeds: Seeds | None = None


class Table(Section):
    """A table is a query over runs: for each task, the named rows.

    Attributes:
        tasks: the tasks, in order.
        rows: the rows, each the name of a method or a section.
        published: the paper's table with the same rows in `config/published.csv`; null for none.
    """

    tasks: list[str] = Field(min_length=1, max_length=MAX_NAMES)
    rows: list[str | Row] = Field(min_length=1, max_length=MAX_NAMES)
    published: str | None = None


class Figure(Section):
    """A grid of sampled images: rows are prompts, columns are methods, all of one task and one sampling seed.

    A column with several training seeds shows the model of the first.

    Attributes:
        task: the task whose models are shown.
        prompts: the prompts, each a style and an object.
        columns: the columns, like the rows of a table.
        seed: the sampling seed, one of the evaluation; null for the first.
        pixels: side of an image in the figure; null for that of the sampled images.
    """

    task: str
    prompts: list[list[str]] = Field(min_length=1)
    columns: list[str | Row] = Field(min_length=1)
    seed: NonNegativeInt | None = None
    pixels: PositiveInt | None = None


class TaskSequence(Section):
    """Forgetting step by step, beside forgetting at once.

    Attributes:
        tasks: the steps, each a task that is `after` the one before it.
        at_once: for each step, a task after no other that forgets all styles of the steps up to it; empty for no
            comparison.
        rows: the models, like the rows of a table.
    """

    tasks: list[str] = Field(min_length=2, max_length=MAX_NAMES)
    rows: list[str | Row] = Field(min_length=1, max_length=MAX_NAMES)
    at_once: list[str] = Field(default_factory=list)


class ProbeBase(Section):
    """What all probes have in common: models that may still know a forgotten style, and the images that show it.

    Attributes:
        tasks: the tasks, whose forget styles are sought.
        rows: the models, like the rows of a table.
        objects: objects of the images, among those that the task evaluates.
        seeds: sampling seeds of the images, among those that the task evaluates.
    """

    tasks: list[str] = Field(min_length=1, max_length=MAX_NAMES)
    rows: list[str | Row] = Field(min_length=1, max_length=MAX_NAMES)
    objects: Literal["evaluated"] | list[str] = "evaluated"
    seeds: Literal["evaluated"] | list[NonNegativeInt] = "evaluated"


class WordingProbe(ProbeBase):
    """Other wordings of the prompts: paraphrases, misspellings, the style without its name, negation.

    Attributes:
        wordings: the wordings, by name.
    """

    kind: Literal["wording"]
    wordings: dict[str, OtherWording] = Field(min_length=1)


class PartialDiffusionProbe(ProbeBase):
    """Sampling that starts from noised images of the forget styles.

    Attributes:
        levels: shares of the sampling steps that are taken; the noise is that of the first of them.
        images: indices of the real images of each style and object; the sampling seeds take them in turn.
    """

    kind: Literal["partial_diffusion"]
    levels: list[float] = Field(min_length=1)
    images: list[PositiveInt] = Field(min_length=1)


class RelearningProbe(ProbeBase):
    """Fine-tuning on a few images of each forget style, by equation 1.

    Attributes:
        images: numbers of images of each forget style.
        steps: numbers of training steps.
        trained: the trained tensors.
        learning_rate: learning rate of Adam; `training.scale` does not apply.
        batch: number of images in a step.
    """

    kind: Literal["relearning"]
    images: list[PositiveInt] = Field(min_length=1)
    steps: list[PositiveInt] = Field(min_length=1)
    trained: DeltaTensors
    learning_rate: PositiveFloat
    batch: PositiveInt


class InversionProbe(ProbeBase):
    """A learned word for each forget style, in place of its name in the prompts (textual inversion).

    Attributes:
        images: number of images of each forget style from which its word is learned.
        steps: numbers of training steps.
        learning_rate: learning rate of Adam; `training.scale` does not apply.
        batch: number of images in a step.
        start: initial value of the word: the style's name, or the mean of the vocabulary.
    """

    kind: Literal["inversion"]
    images: PositiveInt
    steps: list[PositiveInt] = Field(min_length=1)
    learning_rate: PositiveFloat
    batch: PositiveInt
    start: Start


class PrefixProbe(ProbeBase):
    """Words of the vocabulary before the prompts of each forget style, chosen so that the model draws the style.

    Attributes:
        tokens: number of tokens of each prefix.
        images: number of images of each forget style from which its prefix is found.
        steps: numbers of training steps.
        learning_rate: learning rate of Adam on the scores of the tokens; `training.scale` does not apply.
        batch: number of images in a step.
    """

    kind: Literal["prefix"]
    tokens: PositiveInt
    images: PositiveInt
    steps: list[PositiveInt] = Field(min_length=1)
    learning_rate: PositiveFloat
    batch: PositiveInt


class NeighboursProbe(ProbeBase):
    """Retain styles that share a word or a look with a forget style, and those that share nothing with any.

    Attributes:
        alike: the styles that look like a forget style, by forget style, besides those that share a word with it.
    """

    kind: Literal["neighbours"]
    alike: dict[str, list[str]] = Field(default_factory=dict)


Probe = Annotated[
    WordingProbe | PartialDiffusionProbe | RelearningProbe | InversionProbe | PrefixProbe | NeighboursProbe,
    Field(discriminator="kind"),
]


class Threads(Section):
    """CPU threads per stage; results are bit-identical only at equal thread counts.

    Attributes:
        world: threads of the training of the world's models, and of the encoding of images and prompts.
        unlearning: threads of unlearning and saliency masks.
        sampling: threads of sampling.
        evaluation: threads of classification and FID.
    """

    world: PositiveInt
    unlearning: PositiveInt
    sampling: PositiveInt
    evaluation: PositiveInt


class Study(Section):
    """The complete configuration of a set of tables and figures.

    Attributes:
        world: the images, the base model and the classifiers.
        tasks: what is to be forgotten, by the name of the task.
        methods: the unlearning methods, by name.
        baselines: models for comparison, without a training objective, by name.
        models: the user's own unlearned models, by name.
        distances: how models are compared with retrained ones.
        gate: action if the original model's accuracies differ from the paper's: "stop", or "warn" and continue; null
            for no gate.
        tables: the tables, by name.
        figures: the figures, by name.
        probes: the probes, by name.
        sequences: the sequences of tasks that are compared with forgetting at once, by name.
    """

    world: World
    prompts: Prompts
    tasks: dict[str, Task]
    training: TrainingProtocol
    encoding: Encoding
    anchoring: Anchoring
    methods: dict[str, Method]
    baselines: dict[str, Baseline]
    models: dict[str, GivenModel]
    sampling: Sampling
    classification: Classification
    fid: FIDProtocol
    distances: Distances
    gate: Literal["stop", "warn"] | None
    tables: dict[str, Table]
    figures: dict[str, Figure]
    probes: dict[str, Probe]
    sequences: dict[str, TaskSequence]
    threads: Threads
    execution: Execution

    # Derived values

    @property
    def takes_shipped_world(self) -> bool:
        """Whether the study uses the models that the repository ships."""
        return self.world.kind == "miniature" and self.world.pretrained

    @property
    def has_claims(self) -> bool:
        """Whether the study has a table of the paper, about which the paper makes claims."""
        return any(table.published is not None for table in self.tables.values())

    @property
    def training_objects(self) -> list[str]:
        """The objects of the world's images; one that stands for all images, if the world has no objects."""
        return self.world.objects or [ONLY_OBJECT]

    @property
    def evaluated_objects(self) -> list[str]:
        """The objects of sampled images; the names of the prompts of each concept, if the world has no objects."""
        return self.world.objects or self.prompts.variants

    def objects_of_training(self, task: Task) -> list[str]:
        """The objects of a task's training images, in label order."""
        return _in_order(task.objects, self.training_objects)

    def objects_of_evaluation(self, task: Task) -> list[str]:
        """The objects of a task's sampled images, in label order."""
        return _in_order(task.evaluation.objects, self.evaluated_objects)

    def objects_of_probe(self, probe: Probe, task: str) -> list[str]:
        """The objects of a probe's images for a task, in label order."""
        evaluated = self.objects_of_evaluation(self.tasks[task])
        return evaluated if probe.objects == "evaluated" else [name for name in evaluated if name in probe.objects]

    def seeds_of_probe(self, probe: Probe, task: str) -> list[int]:
        """The sampling seeds of a probe's images for a task, in ascending order."""
        return sorted(self.tasks[task].evaluation.seeds if probe.seeds == "evaluated" else probe.seeds)

    def objects_of_reference(self, task: Task) -> list[str]:
        """The objects of the real images with which a task's sampled images are compared, in label order."""
        return self.objects_of_evaluation(task) if self.world.objects else self.training_objects

    @property
    def training_images(self) -> list[int]:
        """The indices of the training images of each cell."""
        return self._indices(self.training.images)

    @property
    def full_fid(self) -> FID:
        """The settings of FID with the indices of all reference images."""
        images = self._indices(self.fid.reference_images)
        return FID(mode=self.fid.mode, reference_images=images, batch=self.fid.batch)

    def _indices(self, images: Literal["all"] | list[int]) -> list[int]:
        return list(range(1, self.world.images_per_cell + 1)) if images == "all" else images

    def length_of(self, method: str, task: str) -> Length | None:
        """The length of a method's training on a task; None if it has none."""
        lengths = self.methods[method].length
        return lengths.get(task, lengths.get(DEFAULT))

    def anchors_of(self, method: str, task: str) -> Scheme | None:
        """The anchor scheme of a method or baseline on a task; None if it has none."""
        anchors = self.anchor_entries(method)
        return anchors.get(task, anchors.get(DEFAULT))

    def anchor_entries(self, method: str) -> dict[str, Scheme]:
        """The anchor schemes of a method or baseline that has anchors, by task."""
        entry = self.methods.get(method) or self.baselines[method]
        assert not isinstance(entry, Retrained), "a retrained model has no anchors"
        return entry.anchors

    def has_anchors(self, method: str) -> bool:
        """Whether a row's method has anchors, as trained methods, edits and relabelled prompts have."""
        return method in self.methods or isinstance(self.baselines.get(method), Edited | Relabelled)

    def has_seeds(self, method: str) -> bool:
        """Whether a row's method is trained here, once with each training seed."""
        return method in self.methods or isinstance(self.baselines.get(method), Retrained)

    def section_of(self, method: str) -> str:
        """The section with the entry of a row's method."""
        return next(name for name in ("methods", "baselines", "models") if method in getattr(self, name))

    def styles_in_label_order(self, styles: list[str]) -> list[str]:
        """The same styles in the order of the classifier's classes."""
        return sorted(styles, key=self.world.styles.index)

    def sequence_to(self, task: str) -> list[str]:
        """The names of the tasks of a sequence up to a task: each is `after` the one before it."""
        names = [task]
        while (before := self.tasks[names[-1]].after) is not None:
            names.append(before)
        return names[::-1]

    def forgotten_before(self, task: Task) -> list[str]:
        """The styles that the earlier tasks of a task's sequence forget, without its own, in the order of the tasks."""
        earlier = [] if task.after is None else self.sequence_to(task.after)
        styles = dict.fromkeys(style for name in earlier for style in self.tasks[name].forget)
        return [style for style in styles if style not in task.forget]

    def evaluated_styles(self, task: Task) -> list[str]:
        """The styles of a task's sampled images: those that it and the earlier tasks forget, and the retain styles."""
        return [*task.forget, *self.forgotten_before(task), *task.evaluation.retain]

    def retain_styles(self, task: Task) -> list[str]:
        """The styles of D_r that may be anchors, in label order; the photos are never among them."""
        if task.retain == "rest":
            forgotten = {*task.forget, *self.forgotten_before(task)}
            styles = [style for style in self.world.styles if style not in forgotten]
        elif task.retain == "evaluated":
            styles = task.evaluation.retain
        else:
            styles = task.retain
        return [style for style in self.styles_in_label_order(styles) if style != self.prompts.photo_style]

    def retain_set(self, task: Task) -> list[str]:
        """All styles of D_r; includes the photos if `photos_in_retain` is set or if D_r is the photos alone."""
        photos = [] if self.prompts.photo_style is None else [self.prompts.photo_style]
        included = task.photos_in_retain or task.retain == photos
        return self.styles_in_label_order(self.retain_styles(task) + (photos if included else []))

    def rows_of(self, rows: list[str | Row]) -> list[Row]:
        """All rows as `Row`; a method's name alone is a row of that name."""
        return [Row(name=row, method=row) if isinstance(row, str) else row for row in rows]

    def retrained_row(self, table: Table) -> Row | None:
        """The first row of retrained models in a table; None if there is none."""
        rows = self.rows_of(table.rows)
        return next((row for row in rows if isinstance(self.baselines.get(row.method), Retrained)), None)

    @property
    def tables_with_distances(self) -> list[str]:
        """The names of the tables that have a row of retrained models."""
        return [name for name, table in self.tables.items() if self.retrained_row(table) is not None]

    def seeds_of(self, row: Row) -> list[int] | list[None]:
        """The training seeds of a row; [None] for a model that has none."""
        if not self.has_seeds(row.method):
            return [None]
        return row.seeds or self.seeds_of_method(row.method)

    def seeds_of_method(self, method: str) -> list[int]:
        """The training seeds of a method, or of a baseline that has some."""
        entry = self.methods.get(method) or self.baselines[method]
        assert isinstance(entry, Method | Retrained)
        return entry.seeds or self.training.seeds

    def title_of(self, row: Row) -> str:
        """The title of a row in a table or figure."""
        if row.title is not None:
            return row.title
        if row.method == ORIGINAL:
            return "Original"
        title: str = getattr(self, self.section_of(row.method))[row.method].title
        return title


def _in_order(objects: Literal["all"] | list[str], known: list[str]) -> list[str]:
    return known if objects == "all" else sorted(objects, key=known.index)
