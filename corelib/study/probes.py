"""From the probes of a study to their runs: the models, images and predictions of each condition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from corelib.runs.model_stages import SEARCH_STAGES
from corelib.runs.run import Run
from corelib.sampling.grid import SampleKey
from corelib.settings.data import EmbeddingsStage
from corelib.settings.evaluation import LABELS, PredictionsStage
from corelib.settings.probe_report import Condition, ProbedModel, ProbedRow, ProbeStage
from corelib.settings.probes import (
    ImageKey,
    InversionStage,
    OtherWording,
    PrefixStage,
    RelearningStage,
    ResampledStage,
)
from corelib.settings.prompts import Wording
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.study.run_factory import RunFactory
from corelib.study.schema import (
    ONLY_OBJECT,
    ORIGINAL,
    InversionProbe,
    NeighboursProbe,
    PartialDiffusionProbe,
    PrefixProbe,
    Probe,
    RelearningProbe,
    Row,
    Scheme,
    Study,
    WordingProbe,
)
from corelib.study.worlds import AssetRuns, MiniatureRuns

USUAL = "usual"
"""The condition in which nothing is done: the images with which the task is evaluated."""

FORGOTTEN = "forgotten"
"""The condition of a probe of neighbours that counts the forget styles themselves."""

ALIKE = "alike"

ORIGINAL_SEED = 0
"""Seed of the draws of a probe on a model that is not trained here."""


class ProbedPlan(Protocol):
    """What the runs of a probe need of a plan (`corelib.study.plan`)."""

    study: Study
    world: MiniatureRuns | AssetRuns

    def samples(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The images of one model."""

    def predictions(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """Style and object of every sampled image of one model."""

    def latents(self) -> Run:
        """The latent moments of every image that any task may train on."""

    def embeddings(self, use: Literal["training", "evaluation"]) -> Run:
        """The text embeddings of every concept."""


@dataclass(frozen=True)
class _Model:
    """A model of a row, for one task and training seed.

    Attributes:
        usual: its images, with which the task is evaluated.
    """

    task: str
    row: Row
    seed: int | None
    usual: Run

    @property
    def wording(self) -> Wording:
        """The wording of its usual prompts."""
        assert isinstance(self.usual.settings, SamplesStage)
        return self.usual.settings.wording

    @property
    def pipeline(self) -> Run:
        """Its base model."""
        return self.usual.inputs["pipeline"]

    @property
    def embeddings(self) -> Run:
        """The embeddings of its usual prompts."""
        return self.usual.inputs["embeddings"]

    @property
    def networks(self) -> dict[str, Run]:
        """The inputs of every attempt: the base model, and the delta if it has one."""
        return {role: run for role, run in self.usual.inputs.items() if role in ("pipeline", "delta")}

    @property
    def label(self) -> str:
        """The beginning of the names of its runs; the usual images of the original model serve all tasks."""
        return f"{ORIGINAL}-{self.task}" if self.row.method == ORIGINAL else self.usual.slug


class ProbeRuns:
    """The runs of one probe.

    Args:
        plan: the plan of the study.
        factory: creates the runs.
        name: name of the probe.
    """

    def __init__(self, plan: ProbedPlan, factory: RunFactory, name: str) -> None:
        self._plan, self._factory, self._name = plan, factory, name
        self._study = plan.study
        self._probe: Probe = plan.study.probes[name]

    def report(self) -> tuple[ProbeStage, dict[str, Run]]:
        """The settings of the probe's report, and the predictions of its images by role."""
        study, probe = self._study, self._probe
        conditions = list(self._conditions())
        rows: list[ProbedRow] = []
        inputs: dict[str, Run] = {}
        for task in probe.tasks:
            for row in study.rows_of(probe.rows):
                models = []
                for seed in study.seeds_of(row):
                    usual = self._plan.samples(task, row.method, row.anchors, seed)
                    found = self._predictions(_Model(task, row, seed, usual))
                    label = f"{task}/{row.name}" if seed is None else f"{task}/{row.name}/{seed}"
                    searches = {name: search for name, run in found.items() if (search := _search_behind(run))}
                    roles = {condition: f"{label}/{condition}" for condition in found}
                    inputs |= {roles[condition]: run for condition, run in found.items()}
                    inputs |= {f"{roles[condition]}/search": run for condition, run in searches.items()}
                    models.append(
                        ProbedModel(
                            seed=seed,
                            predictions=roles,
                            searches={condition: f"{roles[condition]}/search" for condition in searches},
                        )
                    )
                rows.append(ProbedRow(task=task, row=row.name, title=study.title_of(row), models=models))
        settings = ProbeStage(
            name=self._name,
            kind=probe.kind,
            rows=rows,
            conditions=conditions,
            styles={task: self._styles(task, conditions) for task in probe.tasks},
            objects={task: study.objects_of_probe(probe, task) for task in probe.tasks},
            seeds={task: study.seeds_of_probe(probe, task) for task in probe.tasks},
            note=self._plan.world.note,
        )
        return settings, inputs

    # Conditions

    def _conditions(self) -> Iterator[Condition]:
        """The conditions of the probe, the one without any attempt first."""
        match self._probe:
            case WordingProbe(wordings=wordings):
                yield Condition(name=USUAL, group=USUAL, amount=None)
                yield from (Condition(name=name, group=name, amount=None) for name in wordings)
            case PartialDiffusionProbe(levels=levels):
                yield Condition(name=USUAL, group="", amount=None)
                yield from (Condition(name=_level(level), group="restored", amount=level) for level in levels)
            case RelearningProbe(images=images, steps=steps):
                yield Condition(name=USUAL, group="", amount=0.0)
                for count in images:
                    group = f"{count} image{'' if count == 1 else 's'}"
                    yield from (
                        Condition(name=_training(count, number), group=group, amount=float(number)) for number in steps
                    )
            case InversionProbe(steps=steps) | PrefixProbe(steps=steps):
                group = "learned word" if self._probe.kind == "inversion" else "prefix"
                yield Condition(name=USUAL, group="", amount=0.0)
                yield from (Condition(name=_steps(number), group=group, amount=float(number)) for number in steps)
            case NeighboursProbe():
                groups = {group for task in self._probe.tasks for group in self._neighbours(task).values()}
                for name in (FORGOTTEN, ALIKE, *sorted(groups - {ALIKE}, reverse=True)):
                    if name != ALIKE or ALIKE in groups:
                        yield Condition(name=name, group=name, amount=None)

    def _styles(self, task: str, conditions: list[Condition]) -> dict[str, list[str]]:
        """The styles of a task that are counted under each condition."""
        forget = self._study.styles_in_label_order(self._study.tasks[task].forget)
        if not isinstance(self._probe, NeighboursProbe):
            return {condition.name: forget for condition in conditions}
        groups = self._neighbours(task)
        found = {
            condition.name: [style for style, group in groups.items() if group == condition.name]
            for condition in conditions
        }
        return {**found, FORGOTTEN: forget}

    def _neighbours(self, task: str) -> dict[str, str]:
        """The group of each retain style of a task's evaluation: what it shares with the forget styles."""
        assert isinstance(self._probe, NeighboursProbe)
        forget, words = self._study.tasks[task].forget, self._study.prompts.in_evaluation.words
        known = {word for style in forget for word in words(style).lower().split()}
        alike = {other for style in forget for other in self._probe.alike.get(style, [])}
        groups = {}
        for style in self._study.styles_in_label_order(self._study.tasks[task].evaluation.retain):
            shared = sum(word in known for word in words(style).lower().split())
            groups[style] = ALIKE if style in alike else f"shares {shared} word{'' if shared == 1 else 's'}"
        return groups

    # Predictions

    def _predictions(self, model: _Model) -> dict[str, Run]:
        """The predictions of the images of a model under each condition."""
        usual = self._plan.predictions(model.task, model.row.method, model.row.anchors, model.seed)
        found = {USUAL: usual}
        match self._probe:
            case WordingProbe(wordings=wordings):
                changed = {name: self._wording(model, other) for name, other in wordings.items()}
                embeddings = self._embeddings(model, list(changed.values()))
                for name, wording in changed.items():
                    samples = self._samples(model, name, wording, embeddings, model.networks)
                    found[name] = self._classified(model, name, samples)
            case PartialDiffusionProbe(levels=levels):
                for level in levels:
                    found[_level(level)] = self._classified(model, _level(level), self._resampled(model, level))
            case RelearningProbe(images=images, steps=steps):
                for name, count, number in [(_training(c, n), c, n) for c in images for n in steps]:
                    relearned = {"pipeline": model.pipeline, "delta": self._relearning(model, name, count, number)}
                    samples = self._samples(model, name, model.wording, model.embeddings, relearned)
                    found[name] = self._classified(model, name, samples)
            case InversionProbe(steps=steps) | PrefixProbe(steps=steps):
                for number in steps:
                    name = _steps(number)
                    learned = self._learned_prompts(model, name, number)
                    samples = self._samples(model, name, model.wording, learned, model.networks)
                    found[name] = self._classified(model, name, samples)
            case NeighboursProbe():
                return {condition.name: usual for condition in self._conditions()}
        return found

    def _classified(self, model: _Model, condition: str, samples: Run) -> Run:
        settings = PredictionsStage(classification=self._study.classification)
        judges = {f"{label}_classifier": run for label in LABELS if (run := self._plan.world.classifier(label))}
        inputs = {"samples": samples, **judges}
        return self._make("predictions", model, condition, settings, self._study.threads.evaluation, inputs)

    # Images

    def _samples(
        self, model: _Model, condition: str, wording: Wording, embeddings: Run, networks: Mapping[str, Run]
    ) -> Run:
        settings = self._sampling(model.task, wording)
        inputs = {"embeddings": embeddings, **networks}
        return self._make("samples", model, condition, settings, self._study.threads.sampling, inputs)

    def _resampled(self, model: _Model, level: float) -> Run:
        assert isinstance(self._probe, PartialDiffusionProbe)
        sampling, images = self._sampling(model.task, model.wording), self._probe.images
        seeds = self._study.seeds_of_probe(self._probe, model.task)
        settings = ResampledStage(
            samples=sampling,
            sources=[
                (style, object_ if self._study.world.objects else ONLY_OBJECT, images[seeds.index(seed) % len(images)])
                for style, object_, seed in sampling.grid
            ],
            level=level,
        )
        inputs = {"embeddings": model.embeddings, "latents": self._plan.latents(), **model.networks}
        return self._make("resampled", model, _level(level), settings, self._study.threads.sampling, inputs)

    def _sampling(self, task: str, wording: Wording) -> SamplesStage:
        return SamplesStage(sampling=self._study.sampling, wording=wording, grid=self._grid(task))

    def _grid(self, task: str) -> list[SampleKey]:
        """The images of a task, of its forget styles alone, in label order."""
        objects, seeds = (
            self._study.objects_of_probe(self._probe, task),
            self._study.seeds_of_probe(self._probe, task),
        )
        styles = self._study.styles_in_label_order(self._study.tasks[task].forget)
        return [(style, object_, seed) for style in styles for object_ in objects for seed in seeds]

    # Prompts

    def _wording(self, model: _Model, other: OtherWording) -> Wording:
        """Another wording of a model's prompts.

        A misspelling is that of the style's own name, even if the usual prompts of the model have other words for it.
        """
        words = {}
        for style in self._study.tasks[model.task].forget:
            if style in other.names or other.misspelt:
                named = other.names.get(style, self._study.prompts.in_evaluation.words(style))
                words[style] = misspelt(named) if other.misspelt else named
        changed: dict[str, object] = {"names": {**model.wording.names, **words}}
        if other.template is not None:
            changed |= {"template": other.template, "variants": []}
        return model.wording.model_copy(update=changed)

    def _embeddings(self, model: _Model, wordings: Sequence[Wording]) -> Run:
        """The embeddings of the prompts of a model in some wordings."""
        concepts = {(style, object_) for style, object_, _ in self._grid(model.task)}
        prompts = {wording.prompt(*concept) for wording in wordings for concept in concepts}
        settings = EmbeddingsStage(prompts=sorted({self._study.sampling.negative_prompt, *prompts}))
        return self._embedded(model, settings, model.task)

    def _embedded(self, model: _Model, settings: EmbeddingsStage, slug: str) -> Run:
        """A run of embeddings; models with the same prompts and base model share it."""
        slug, inputs = f"{self._study.world.kind}-{slug}-{self._name}", {"pipeline": model.pipeline}
        return self._factory.make("embeddings", slug, settings, self._study.threads.world, inputs)

    # Training

    def _relearning(self, model: _Model, name: str, count: int, steps: int) -> Run:
        study, probe = self._study, self._probe
        assert isinstance(probe, RelearningProbe)
        settings = RelearningStage(
            images=self._images(model.task, count),
            learning_rate=probe.learning_rate,
            batch=probe.batch,
            steps=steps,
            optimizer=study.training.optimizer,
            wording=study.prompts.in_training,
            precision=study.training.precision,
            seed=_seed(model),
            trained=probe.trained,
        )
        inputs = {
            "latents": self._plan.latents(),
            "embeddings": self._captions(model, settings),
            **model.networks,
        }
        return self._make("relearning", model, name, settings, study.threads.unlearning, inputs)

    def _captions(self, model: _Model, settings: RelearningStage) -> Run:
        """The embeddings of the captions on which a model is trained, by its own text encoder."""
        if model.pipeline.digest == self._plan.world.pipeline().digest:
            return self._plan.embeddings("training")
        captions = {settings.wording.prompt(style, object_) for style, object_, _ in settings.images}
        return self._embedded(model, EmbeddingsStage(prompts=sorted(captions)), f"{model.label}-training")

    def _learned_prompts(self, model: _Model, name: str, steps: int) -> Run:
        """The embeddings of prompts with a learned word or prefix, in place of those of the usual prompts."""
        study, probe = self._study, self._probe
        assert isinstance(probe, InversionProbe | PrefixProbe)
        leaves: dict[str, Any] = {
            "images": self._images(model.task, probe.images),
            "learning_rate": probe.learning_rate,
            "batch": probe.batch,
            "steps": steps,
            "optimizer": study.training.optimizer,
            "wording": model.wording,
            "precision": study.training.precision,
            "seed": _seed(model),
            "concepts": list(dict.fromkeys((style, object_) for style, object_, _ in self._grid(model.task))),
            "negative_prompt": study.sampling.negative_prompt,
        }
        inputs = {"latents": self._plan.latents(), **model.networks}
        threads = study.threads.unlearning
        if isinstance(probe, PrefixProbe):
            return self._make("prefixes", model, name, PrefixStage(**leaves, tokens=probe.tokens), threads, inputs)
        return self._make("inversion", model, name, InversionStage(**leaves, start=probe.start), threads, inputs)

    def _images(self, task: str, count: int) -> list[ImageKey]:
        """The first images of each forget style of a task: one of each object, then the second of each."""
        definition = self._study.tasks[task]
        cells = [
            (object_, index)
            for index in sorted(self._study.training_images)
            for object_ in self._study.objects_of_training(definition)
        ]
        styles = self._study.styles_in_label_order(definition.forget)
        return [(style, object_, index) for style in styles for object_, index in cells[:count]]

    # Runs

    def _make(
        self,
        stage: str,
        model: _Model,
        condition: str,
        settings: Section,
        threads: int,
        inputs: Mapping[str, Run],
    ) -> Run:
        return self._factory.make(stage, f"{model.label}-{self._name}-{condition}", settings, threads, inputs)


def misspelt(text: str) -> str:
    """A text in which every word of four or more letters lacks its last letter."""
    return re.sub(r"\b([^\W\d_]{3,})[^\W\d_]\b", r"\1", text)


def _search_behind(predictions: Run) -> Run | None:
    """The run that searched for the style in the images of a condition; None if none did."""
    behind = predictions.inputs["samples"].inputs.values()
    return next((run for run in behind if run.stage in SEARCH_STAGES), None)


def _seed(model: _Model) -> int:
    return ORIGINAL_SEED if model.seed is None else model.seed


def _level(level: float) -> str:
    return f"from {100 * level:g} % of the steps"


def _training(images: int, steps: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}, {steps} step{'' if steps == 1 else 's'}"


def _steps(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"
