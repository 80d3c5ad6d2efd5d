"""From the probes of a study to their runs: the models, images and predictions of each condition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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

    def model(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The unlearned model of a row."""

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
    """A model of a row, for one task and training seed."""

    task: str
    row: Row
    seed: int | None


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
                    found = self._predictions(_Model(task, row, seed))
                    label = f"{task}/{row.name}" if seed is None else f"{task}/{row.name}/{seed}"
                    roles = {condition: f"{label}/{condition}" for condition in found}
                    inputs |= {roles[condition]: run for condition, run in found.items()}
                    models.append(ProbedModel(seed=seed, predictions=roles))
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
                yield Condition(name=USUAL, group="", amount=1.0)
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
                embeddings = self._embeddings()
                for name, wording in wordings.items():
                    samples = self._samples(model, name, self._wording(wording), embeddings, self._delta(model))
                    found[name] = self._classified(model, name, samples)
            case PartialDiffusionProbe(levels=levels):
                for level in levels:
                    found[_level(level)] = self._classified(model, _level(level), self._resampled(model, level))
            case RelearningProbe(images=images, steps=steps):
                for name, count, number in [(_training(c, n), c, n) for c in images for n in steps]:
                    relearned = {"delta": self._relearning(model, name, count, number)}
                    samples = self._samples(
                        model, name, self._evaluation, self._plan.embeddings("evaluation"), relearned
                    )
                    found[name] = self._classified(model, name, samples)
            case InversionProbe(steps=steps) | PrefixProbe(steps=steps):
                for number in steps:
                    name = _steps(number)
                    learned = self._learned_prompts(model, name, number)
                    samples = self._samples(model, name, self._evaluation, learned, self._delta(model))
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
        self, model: _Model, condition: str, wording: Wording, embeddings: Run, delta: Mapping[str, Run]
    ) -> Run:
        settings = self._sampling(model.task, wording)
        inputs = {"pipeline": self._plan.world.pipeline(), "embeddings": embeddings, **delta}
        return self._make("samples", model, condition, settings, self._study.threads.sampling, inputs)

    def _resampled(self, model: _Model, level: float) -> Run:
        assert isinstance(self._probe, PartialDiffusionProbe)
        sampling, images = self._sampling(model.task, self._evaluation), self._probe.images
        seeds = self._study.seeds_of_probe(self._probe, model.task)
        settings = ResampledStage(
            samples=sampling,
            sources=[
                (style, object_ if self._study.world.objects else ONLY_OBJECT, images[seeds.index(seed) % len(images)])
                for style, object_, seed in sampling.grid
            ],
            level=level,
        )
        inputs = {
            "pipeline": self._plan.world.pipeline(),
            "embeddings": self._plan.embeddings("evaluation"),
            "latents": self._plan.latents(),
            **self._delta(model),
        }
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

    @property
    def _evaluation(self) -> Wording:
        return self._study.prompts.in_evaluation

    def _wording(self, other: OtherWording) -> Wording:
        """The wording of a study's prompts with the changes of another one."""
        usual = self._evaluation
        words = {style: other.names.get(style, usual.words(style)) for style in self._forget_styles()}
        if other.misspelt:
            words = {style: misspelt(text) for style, text in words.items()}
        changed: dict[str, object] = {"names": {**usual.names, **words}}
        if other.template is not None:
            changed |= {"template": other.template, "variants": []}
        return usual.model_copy(update=changed)

    def _embeddings(self) -> Run:
        """The embeddings of the prompts of all wordings of the probe."""
        assert isinstance(self._probe, WordingProbe)
        wordings = [self._wording(other) for other in self._probe.wordings.values()]
        concepts = {(style, object_) for task in self._probe.tasks for style, object_, _ in self._grid(task)}
        prompts = {wording.prompt(*concept) for wording in wordings for concept in concepts}
        settings = EmbeddingsStage(prompts=sorted({self._study.sampling.negative_prompt, *prompts}))
        slug, inputs = f"{self._study.world.kind}-{self._name}", {"pipeline": self._plan.world.pipeline()}
        return self._factory.make("embeddings", slug, settings, self._study.threads.world, inputs)

    def _forget_styles(self) -> list[str]:
        return list(dict.fromkeys(style for task in self._probe.tasks for style in self._study.tasks[task].forget))

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
            "pipeline": self._plan.world.pipeline(),
            "latents": self._plan.latents(),
            "embeddings": self._plan.embeddings("training"),
            **self._delta(model),
        }
        return self._make("relearning", model, name, settings, study.threads.unlearning, inputs)

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
            "wording": self._evaluation,
            "precision": study.training.precision,
            "seed": _seed(model),
            "concepts": list(dict.fromkeys((style, object_) for style, object_, _ in self._grid(model.task))),
            "negative_prompt": study.sampling.negative_prompt,
        }
        inputs = {"pipeline": self._plan.world.pipeline(), "latents": self._plan.latents(), **self._delta(model)}
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

    def _delta(self, model: _Model) -> dict[str, Run]:
        """The unlearned model of a row as an input; empty for the original model."""
        if model.row.method == ORIGINAL:
            return {}
        return {"delta": self._plan.model(model.task, model.row.method, model.row.anchors, model.seed)}

    def _make(
        self,
        stage: str,
        model: _Model,
        condition: str,
        settings: Section,
        threads: int,
        inputs: Mapping[str, Run],
    ) -> Run:
        usual = self._plan.samples(model.task, model.row.method, model.row.anchors, model.seed)
        label = f"{ORIGINAL}-{model.task}" if model.row.method == ORIGINAL else usual.slug
        slug = f"{label}-{self._name}-{condition}"
        return self._factory.make(stage, slug, settings, threads, inputs)


def misspelt(text: str) -> str:
    """A text in which every word of four or more letters lacks its last letter."""
    return re.sub(r"\b([^\W\d_]{3,})[^\W\d_]\b", r"\1", text)


def _seed(model: _Model) -> int:
    return ORIGINAL_SEED if model.seed is None else model.seed


def _level(level: float) -> str:
    return f"from {100 * level:g} % of the steps"


def _training(images: int, steps: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}, {steps} step{'' if steps == 1 else 's'}"


def _steps(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"
