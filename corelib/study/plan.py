"""From a study to its runs: the stages that a table or a figure needs, and the settings and inputs of each.

This module computes no results, does not access the disk, and never imports torch. Equal runs of different rows, tables
and studies are equal values with equal addresses, so they are built once.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from corelib.errors import ConfigurationError
from corelib.runs.run import Run
from corelib.runs.stage_registry import STAGES
from corelib.sampling.grid import SampleKey
from corelib.settings.claims import Claim
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.distances import ComparedPair, ComparedRow, ComparisonStage, DistancesStage
from corelib.settings.edits import EditStage
from corelib.settings.evaluation import LABELS, CellsStage, FIDStage, PredictionsStage, ReferenceStage
from corelib.settings.gate import GateStage
from corelib.settings.given_models import WEIGHTS, GivenModelStage
from corelib.settings.prompts import EMPTY_CONCEPT, Wording
from corelib.settings.reports import (
    ChartsStage,
    EvaluatedSeed,
    FigureStage,
    TableRow,
    TableStage,
)
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.settings.unlearning import SaliencyStage, UnlearningStage
from corelib.study import anchors
from corelib.study.probes import ProbeRuns
from corelib.study.run_factory import RunFactory, cached_method
from corelib.study.schema import (
    ORIGINAL,
    AnchorPairs,
    Edited,
    MiniatureWorld,
    Relabelled,
    Retrained,
    Row,
    Scheme,
    Study,
    Task,
    anchors_in_words,
)
from corelib.study.sequences import sequence_settings
from corelib.study.summaries import IsBuilt, claims_settings, report_settings, training_role
from corelib.study.targets import charts_name, distances_name
from corelib.study.worlds import AssetRuns, MiniatureRuns


class Plan:
    """The runs of one study. Every method returns the same value each time it is called.

    Args:
        name: name of the study.
        study: its configuration.
        published: the paper's numbers, as (table, task, row, metric, value, k, n).
        shipped: the record of the shipped world, for a study that uses it.
        locked: the sha256 of each locked asset and model of the user's, by its place.
        slugs: the slugs of known runs (`RunFactory`).
        claims: the paper's claims.
        is_built: whether a run has a result already; by default none has.

    Attributes:
        world: the runs that the study's world supplies.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        published: list[list[str]],
        shipped: Mapping[str, Any] | None = None,
        locked: Mapping[str, str] | None = None,
        slugs: Mapping[tuple[str, str], str] | None = None,
        claims: Sequence[Claim] = (),
        is_built: IsBuilt = lambda run: False,
    ) -> None:
        self._claims, self._is_built, self._locked = claims, is_built, locked or {}
        self.name = name
        self.study = study
        self.published = published
        self._factory = RunFactory(study.execution, slugs or {})
        self.world: MiniatureRuns | AssetRuns
        if isinstance(study.world, MiniatureWorld):
            self.world = MiniatureRuns(study, study.world, self._factory, shipped)
        else:
            self.world = AssetRuns(study, study.world, self._factory, locked or {})

    @property
    def asset_world(self) -> AssetRuns:
        """The world of a study that needs the user's assets.

        Raises `ConfigurationError` for a study of the miniature.
        """
        if isinstance(self.world, MiniatureRuns):
            raise ConfigurationError(
                f"study {self.name}: world.kind is {self.study.world.kind!r}, which needs no assets; choose a study of "
                "the paper's world or of an image folder."
            )
        return self.world

    # Products

    @cached_method
    def table(self, name: str) -> Run:
        """A table over the cells of its rows."""
        table = self.study.tables[name]
        rows, inputs = self.rows_of(name)
        settings = TableStage(
            name=name,
            rows=rows,
            published=[numbers for source, *numbers in self.published if source == table.published],
            comparable=self.world.is_comparable_with_paper,
            note=self.world.note,
        )
        return self._run("tables", f"{self.name}-{name}", settings, 1, inputs | self._gates())

    def rows_of(self, name: str) -> tuple[list[TableRow], dict[str, Run]]:
        """The rows of a table for each of its tasks, and their cells by role."""
        table = self.study.tables[name]
        rows, inputs = [], {}
        for task in table.tasks:
            for row in self.study.rows_of(table.rows):
                seeds = []
                for seed in self.study.seeds_of(row):
                    role = f"{task}/{row.name}" if seed is None else f"{task}/{row.name}/{seed}"
                    inputs[role] = self.cells(task, row.method, row.anchors, seed)
                    seeds.append(EvaluatedSeed(seed=seed, cells=role))
                rows.append(
                    TableRow(
                        task=task,
                        row=row.name,
                        title=self.study.title_of(row),
                        seeds=seeds,
                        is_original=row.method == ORIGINAL,
                        anchors=self._anchors_of(task, row),
                    )
                )
        return rows, inputs

    def _anchors_of(self, task: str, row: Row) -> dict[str, list[str]]:
        if not self.study.has_anchors(row.method):
            return {}
        return self.candidates(self.study.tasks[task], self._scheme(task, row.method, row.anchors))

    @cached_method
    def charts(self, name: str) -> Run:
        """The charts of a table, over the cells of its rows and the training runs of their models."""
        table = self.study.tables[name]
        rows, inputs = self.rows_of(name)
        trainings = self.trainings_of(name)
        settings = ChartsStage(
            name=charts_name(name),
            rows=rows,
            published=[numbers for source, *numbers in self.published if source == table.published],
            trainings={cells: training_role(cells) for cells in trainings},
        )
        inputs |= {training_role(cells): run for cells, run in trainings.items()}
        return self._run("charts", f"{self.name}-{settings.name}", settings, 1, inputs)

    def trainings_of(self, name: str) -> dict[str, Run]:
        """The unlearning run behind each seed of each row of a table that has one, by the role of its cells."""
        table = self.study.tables[name]
        return {
            f"{task}/{row.name}/{seed}": self.unlearning(task, row.method, row.anchors, seed)
            for task in table.tasks
            for row in self.study.rows_of(table.rows)
            if row.method in self.study.methods
            for seed in self.study.seeds_of(row)
        }

    @cached_method
    def comparison(self, name: str) -> Run:
        """The distances of the rows of a table to its retrained models; the table has a row of these."""
        table = self.study.tables[name]
        retrained = self.study.retrained_row(table)
        assert retrained is not None
        rows, inputs = [], {}
        for task in table.tasks:
            for row in self.study.rows_of(table.rows):
                pairs = []
                for seed, other in self._compared_seeds(row, retrained):
                    role = f"{task}/{row.name}/{'' if seed is None else seed}/{other}"
                    inputs[role] = self.distances(task, row, seed, retrained, other)
                    pairs.append(ComparedPair(seed=seed, retrained_seed=other, distances=role))
                rows.append(ComparedRow(task=task, row=row.name, title=self.study.title_of(row), pairs=pairs))
        settings = ComparisonStage(name=distances_name(name), rows=rows, note=self.world.note)
        return self._run("comparisons", f"{self.name}-{settings.name}", settings, 1, inputs)

    def _compared_seeds(self, row: Row, retrained: Row) -> list[tuple[int | None, int]]:
        """The training seeds of each pair of a row's model and a retrained one; retrained models pair with each other.

        A table of one retrained model has no pair for its row.
        """
        others = [seed for seed in self.study.seeds_of(retrained) if seed is not None]
        if row.name == retrained.name:
            return list(itertools.combinations(others, 2))
        return list(itertools.product(self.study.seeds_of(row), others))

    def distances(self, task: str, row: Row, seed: int | None, retrained: Row, retrained_seed: int) -> Run:
        """The distances of one model to a retrained one on one task."""
        study, definition = self.study, self.study.tasks[task]
        captions = study.prompts.in_training
        settings = DistancesStage(
            distances=study.distances,
            fid=study.full_fid,
            forget=study.styles_in_label_order(definition.forget),
            retain=study.styles_in_label_order(definition.evaluation.retain),
            objects=study.objects_of_evaluation(definition),
            grid=[image for image in self.grid_of(task) if image[0] not in study.forgotten_before(definition)],
            wording=self._relabelled(captions, task, row.method, row.anchors),
            retrained_wording=captions,
            batch=study.sampling.batch,
        )
        inputs = {"latents": self.latents(), **self.world.feature_extractors()}
        for prefix, one, seed_of_one in (("", row, seed), ("retrained_", retrained, retrained_seed)):
            model = self.model(task, one.method, one.anchors, seed_of_one, "training")
            inputs |= {f"{prefix}{role}": run for role, run in model.items()}
            inputs[f"{prefix}samples"] = self.samples(task, one.method, one.anchors, seed_of_one)
            inputs[f"{prefix}predictions"] = self.predictions(task, one.method, one.anchors, seed_of_one)
        slug = f"{self._slug(task, row.method, row.anchors, seed)}-{retrained.method}-s{retrained_seed}"
        return self._run("distances", slug, settings, self._evaluation_threads, inputs)

    def claims(self, is_built: IsBuilt) -> Run:
        """The verdicts on the paper's claims, over the rows that are built.

        Args:
            is_built: whether the cells of a row are built, or will be before the claims are evaluated.
        """
        settings, inputs = claims_settings(self, self._claims, is_built)
        return self._run("claims", f"{self.name}-claims", settings, 1, inputs)

    def report(self, is_built: IsBuilt) -> Run:
        """The page of the study, over everything that is built.

        Args:
            is_built: whether a run is built, or will be before the page is written.
        """
        settings, inputs = report_settings(self, self._claims, is_built)
        return self._run("reports", f"{self.name}-report", settings, 1, inputs)

    @cached_method
    def figure(self, name: str) -> Run:
        """A grid of images over the samples of its columns."""
        settings, inputs = self.figure_settings(name)
        return self._run("figures", f"{self.name}-{name}", settings, 1, inputs)

    def figure_settings(self, name: str) -> tuple[FigureStage, dict[str, Run]]:
        """The settings of a figure, and the samples of its columns by role."""
        figure = self.study.figures[name]
        rows = self.study.rows_of(figure.columns)
        settings = FigureStage(
            name=name,
            rows=[(style, object_) for style, object_ in figure.prompts],
            row_titles=[self._row_title(figure.task, style, object_) for style, object_ in figure.prompts],
            columns=[(row.name, self.study.title_of(row)) for row in rows],
            seed=self.study.tasks[figure.task].evaluation.seeds[0] if figure.seed is None else figure.seed,
            pixels=figure.pixels or self.study.sampling.resolution,
        )
        inputs = {
            row.name: self.samples(figure.task, row.method, row.anchors, self.study.seeds_of(row)[0]) for row in rows
        }
        return settings, inputs

    @cached_method
    def probe(self, name: str) -> Run:
        """The report on a probe, over the predictions of its images."""
        settings, inputs = ProbeRuns(self, self._factory, name).report()
        return self._run("probes", f"{self.name}-{name}", settings, 1, inputs)

    @cached_method
    def sequence(self, name: str) -> Run:
        """The report on a sequence of tasks, over the predictions of its models."""
        settings, inputs = sequence_settings(self, name)
        return self._run("sequences", f"{self.name}-{name}", settings, 1, inputs)

    def _row_title(self, task: str, style: str, object_: str) -> str:
        kind = "Kept" if style in self.study.tasks[task].evaluation.retain else "Forgotten"
        return f"{kind}: {self.study.prompts.in_evaluation.prompt(style, object_)}"

    def products(self, is_built: IsBuilt | None = None) -> dict[str, Run]:
        """Every product of the study by name: tables, charts, distances, figures, probes, sequences and reports.

        Args:
            is_built: whether a run is built, or will be in this invocation; by default, whether it is built already.
        """
        products = {name: self.table(name) for name in self.study.tables}
        products |= {charts_name(name): self.charts(name) for name in self.study.tables}
        products |= {distances_name(name): self.comparison(name) for name in self.study.tables_with_distances}
        products |= {name: self.figure(name) for name in self.study.figures}
        products |= {name: self.probe(name) for name in self.study.probes}
        products |= {name: self.sequence(name) for name in self.study.sequences}
        if self.study.gate is not None:
            products["gate"] = self.gate_report()
        if self.study.has_claims:
            products["claims"] = self.claims(is_built or self._is_built)
        products["report"] = self.report(is_built or self._is_built)
        return products

    # The gate

    @cached_method
    def gate(self) -> Run:
        """The check of the original model against the paper's numbers, for which all training waits."""
        settings = self.gate_settings()
        inputs = {"cells": self.cells(settings.task, ORIGINAL, None)}
        return self._run("gate", f"{settings.task}-{settings.on_failure}", settings, 1, inputs)

    @cached_method
    def gate_report(self) -> Run:
        """The report of the same comparison as a page."""
        settings = self.gate_settings()
        inputs = {"cells": self.cells(settings.task, ORIGINAL, None)}
        return self._run("gates", f"{self.name}-gate", settings, 1, inputs)

    def gate_settings(self) -> GateStage:
        """The settings of the gate: the task with the most images for which the paper has counts.

        Raises `ConfigurationError` if the paper has no numbers of the original model for the study's tasks.
        """
        counts: dict[str, dict[str, tuple[int, int]]] = {}
        for _, task, row, metric, _, k, n in self.published:
            if row == ORIGINAL and task in self.study.tasks and k:
                counts.setdefault(task, {})[metric] = int(k), int(n)
        if not counts:
            raise ConfigurationError(
                f"study {self.name}: gate is {self.study.gate!r}, expected null, since the paper has no numbers of the "
                f"original model for the tasks {', '.join(self.study.tasks)}."
            )
        largest = max(counts, key=lambda task: sum(n for _, n in counts[task].values()))
        assert self.study.gate is not None
        return GateStage(task=largest, published=counts[largest], on_failure=self.study.gate)

    def _gates(self) -> dict[str, Run]:
        return {} if self.study.gate is None else {"gate": self.gate()}

    # Evaluation

    @cached_method
    def cells(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The counts and values of one model on one task.

        Args:
            task: name of the task.
            method: name of the method, or `ORIGINAL`.
            scheme: anchor scheme; None for the method's own.
            seed: training seed; None for the first of the method's seeds, and for the original model.
        """
        evaluation = self.study.tasks[task].evaluation
        settings = CellsStage(
            forget=self.study.styles_in_label_order(self.study.tasks[task].forget),
            retain=self.study.styles_in_label_order(evaluation.retain),
            objects=self.study.objects_of_evaluation(self.study.tasks[task]),
            seeds=sorted(evaluation.seeds),
        )
        inputs = {
            "predictions": self.predictions(task, method, scheme, seed),
        }
        if self.world.feature_extractors():
            inputs |= {"fid": self.fid(task, method, scheme, seed), "fid_of_original": self.fid(task, ORIGINAL, None)}
        return self._run("cells", self._slug(task, method, scheme, seed), settings, 1, inputs)

    @cached_method
    def fid(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The FID between one model's retain images and the real ones."""
        retain = set(self.study.tasks[task].evaluation.retain)
        settings = FIDStage(fid=self.study.full_fid, grid=[image for image in self.grid_of(task) if image[0] in retain])
        inputs = {
            "samples": self.samples(task, method, scheme, seed),
            "reference": self.reference(task),
            **self.world.feature_extractors(),
        }
        return self._run("fid", self._slug(task, method, scheme, seed), settings, self._evaluation_threads, inputs)

    @cached_method
    def reference(self, task: str) -> Run:
        """The feature statistics of the real images of a task's retain cells."""
        definition = self.study.tasks[task]
        settings = ReferenceStage(
            fid=self.study.full_fid,
            styles=self.study.styles_in_label_order(definition.evaluation.retain),
            objects=self.study.objects_of_reference(definition),
        )
        inputs = {"images": self.world.images(), **self.world.feature_extractors()}
        return self._run("reference", task, settings, self._evaluation_threads, inputs)

    @cached_method
    def predictions(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """Style and object of every sampled image of one model."""
        settings = PredictionsStage(classification=self.study.classification)
        inputs = {
            "samples": self.samples(task, method, scheme, seed),
            **{f"{label}_classifier": run for label in LABELS if (run := self.world.classifier(label)) is not None},
        }
        slug = self._slug_of_samples(task, method, scheme, seed)
        return self._run("predictions", slug, settings, self._evaluation_threads, inputs)

    # Models and their images

    @cached_method
    def samples(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The images of one model: of an unlearned one on its task's grid, of the original once for all tasks."""
        study = self.study
        settings = SamplesStage(
            sampling=study.sampling,
            wording=self._relabelled(study.prompts.in_evaluation, task, method, scheme),
            grid=self.grid_of_all_tasks() if method == ORIGINAL else self.grid_of(task),
        )
        inputs = self.model(task, method, scheme, seed)
        slug = self._slug_of_samples(task, method, scheme, seed)
        return self._run("samples", slug, settings, study.threads.sampling, inputs)

    def model(
        self,
        task: str,
        method: str,
        scheme: Scheme | None,
        seed: int | None = None,
        use: Literal["training", "evaluation"] = "evaluation",
    ) -> dict[str, Run]:
        """The runs that are the model of a row, by role: a pipeline, its embeddings, and a delta if it has one.

        Args:
            task: name of the task.
            method: name of the method, baseline or model, or `ORIGINAL`.
            scheme: anchor scheme; None for the method's own, and for a model without anchors.
            seed: training seed; None for the first of the method's seeds, and for a model without seeds.
            use: whether the embeddings are those of captions or of the prompts of sampled images.
        """
        baseline = self.study.baselines.get(method)
        if isinstance(baseline, Retrained):
            pipeline = self.retrained(task, method, seed)
            return {"pipeline": pipeline, "embeddings": self._embeddings_of(pipeline, use, pipeline.slug)}
        base = {"pipeline": self.world.pipeline(), "embeddings": self.embeddings(use)}
        if method == ORIGINAL or isinstance(baseline, Relabelled):
            return base
        if isinstance(baseline, Edited):
            return base | {"delta": self.edit(task, method, scheme)}
        if method in self.study.models:
            return base | {"delta": self.given_model(task, method)}
        return base | {"delta": self.unlearning(task, method, scheme, seed)}

    def _relabelled(self, wording: Wording, task: str, method: str, scheme: Scheme | None) -> Wording:
        """The wording of a model's prompts: relabelled prompts have the words of the anchor for those of a style."""
        if not isinstance(self.study.baselines.get(method), Relabelled):
            return wording
        anchors: dict[str, str] = {}
        for step in self.study.sequence_to(task):
            candidates = self.candidates(self.study.tasks[step], self._scheme(step, method, scheme))
            new = {style: anchor for style, (anchor,) in candidates.items()}
            anchors = {style: new.get(anchor, anchor) for style, anchor in anchors.items()} | new
        names = {style: wording.words(anchor) for style, anchor in anchors.items()}
        variants = wording.variants
        if isinstance(variants, dict):
            variants = {**variants, **{style: variants[anchor] for style, anchor in anchors.items()}}
        return Wording(template=wording.template, names={**wording.names, **names}, variants=variants)

    @cached_method
    def edit(self, task: str, method: str, scheme: Scheme | None) -> Run:
        """The delta of a closed-form edit on one task."""
        study, baseline, definition = self.study, self.study.baselines[method], self.study.tasks[task]
        assert isinstance(baseline, Edited)
        settings = EditStage(
            edit=baseline.edit,
            candidates=self.candidates(definition, self._scheme(task, method, scheme)),
            retain=study.retain_set(definition),
            objects=study.objects_of_training(definition),
            wording=study.prompts.in_training,
        )
        inputs = {"pipeline": self.world.pipeline(), "embeddings": self.embeddings("training")}
        if definition.after is not None:
            inputs["start"] = self.edit(definition.after, method, scheme)
        return self._run("edits", self._slug(task, method, scheme, None), settings, study.threads.unlearning, inputs)

    @cached_method
    def retrained(self, task: str, method: str, seed: int | None = None) -> Run:
        """The miniature's model without a task's forget styles."""
        assert isinstance(self.world, MiniatureRuns), "only the miniature of a checked study is retrained"
        definition = self.study.tasks[task]
        forget = self.study.styles_in_label_order([*definition.forget, *self.study.forgotten_before(definition)])
        slug = self._slug(task, method, None, seed)
        return self.world.retrained(slug, tuple(forget), self._seed(method, seed))

    def asset_places(self) -> dict[str, str]:
        """The path of each asset of the user's, by its key in the study; none for the miniature."""
        if self.study.world.kind == "miniature":
            return {}
        return {f"world.assets.{name}": place for name, place in self.asset_world.assets()[1].items()}

    def given_models(self) -> dict[str, str]:
        """The path of each model of the user's own, by its key in the study."""
        return {
            f"models.{name}.weights.{task}": path
            for name, model in self.study.models.items()
            for task, path in model.weights.items()
        }

    @cached_method
    def given_model(self, task: str, name: str) -> Run:
        """A model of the user's own as a delta."""
        path = self.study.models[name].weights[task]
        settings = GivenModelStage(sha256={WEIGHTS: self._locked.get(path)})
        inputs, threads = {"pipeline": self.world.pipeline()}, self.study.threads.world
        return self._run("models", f"{name}-{task}", settings, threads, inputs, {WEIGHTS: path})

    @cached_method
    def unlearning(self, task: str, method: str, scheme: Scheme | None, seed: int | None = None) -> Run:
        """The delta of one method on one task."""
        study, recipe, seed = self.study, self.study.methods[method], self._seed(method, seed)
        start = self._start(task, method, scheme, seed)
        scheme, length = self._scheme(task, method, scheme), study.length_of(method, task)
        assert length is not None, "rows of a checked study have a length for each task"
        candidates = self.candidates(study.tasks[task], scheme)
        settings = UnlearningStage(
            objective=recipe.objective,
            trained=recipe.trained,
            candidates=candidates,
            draw=study.anchoring.draw if any(len(styles) > 1 for styles in candidates.values()) else None,
            learning_rate=recipe.learning_rate * study.training.scale.learning_rate,
            batch=recipe.batch,
            length=length.times(study.training.scale.length),
            min_steps=study.training.scale.min_steps,
            batch_counts=study.training.batch_counts,
            reduction=study.training.reduction,
            optimizer=study.training.optimizer,
            kernels=study.training.kernels,
            wording=study.prompts.in_training,
            precision=study.training.precision,
            seed=seed,
        )
        inputs = self._training_inputs(task) | start
        if recipe.saliency is not None:
            inputs["saliency"] = self._saliency(task, method, seed, start)
        if recipe.objective.unlearn.images == "generated":
            inputs["generated"] = self._generated(task, scheme, start)
        return self._run(
            "unlearning", self._slug(task, method, scheme, seed), settings, study.threads.unlearning, inputs
        )

    def _start(self, task: str, method: str, scheme: Scheme | None, seed: int) -> dict[str, Run]:
        """The delta from which training on a task starts, by role; empty if it starts from the pre-trained model."""
        before = self.study.tasks[task].after
        return {} if before is None else {"start": self.unlearning(before, method, scheme, seed)}

    def _saliency(self, task: str, method: str, seed: int, start: Mapping[str, Run]) -> Run:
        """The mask of the weights that a method may change, by the gradients of the model from which it starts."""
        study, recipe = self.study, self.study.methods[method]
        assert recipe.saliency is not None
        settings = SaliencyStage(
            saliency=recipe.saliency,
            trained=recipe.trained,
            batch=recipe.batch,
            wording=study.prompts.in_training,
            precision=study.training.precision,
            seed=seed,
        )
        slug = f"{method}-{task}-s{seed}"
        inputs = self._training_inputs(task) | dict(start)
        return self._run("saliency", slug, settings, study.threads.unlearning, inputs)

    def _generated(self, task: str, scheme: Scheme, start: Mapping[str, Run]) -> Run:
        """The latents of images for a scheme's anchors, one for each training index.

        The model from which the training starts generates them.
        """
        study, definition = self.study, self.study.tasks[task]
        anchors = {anchor for styles in self.candidates(definition, scheme).values() for anchor in styles}
        settings = LatentsStage(
            styles=study.styles_in_label_order(list(anchors)),
            objects=study.objects_of_training(definition),
            images=sorted(study.training_images),
            encoding=study.encoding,
        )
        sample_settings = SamplesStage(
            sampling=study.sampling,
            wording=study.prompts.in_evaluation,
            grid=[
                (style, object_, index)
                for style in settings.styles
                for object_ in settings.objects
                for index in settings.images
            ],
        )
        slug = f"{task}-{anchors_in_words(scheme)}"
        sample_inputs = {"pipeline": self.world.pipeline(), "embeddings": self.embeddings("evaluation")}
        if "start" in start:
            sample_inputs["delta"] = start["start"]
        samples = self._run("samples", f"anchors-{slug}", sample_settings, study.threads.sampling, sample_inputs)
        inputs = {"samples": samples, "pipeline": self.world.pipeline()}
        return self._run("generated", slug, settings, study.threads.world, inputs)

    def _training_inputs(self, task: str) -> dict[str, Run]:
        return {
            "pipeline": self.world.pipeline(),
            "slice": self.slice(task),
            "latents": self.latents(),
            "embeddings": self.embeddings("training"),
        }

    def candidates(self, task: Task, scheme: Scheme) -> dict[str, list[str]]:
        """The anchors of each forget style of a task."""
        if isinstance(scheme, AnchorPairs):
            return {style: [scheme[style]] for style in task.forget}
        anchoring = self.study.anchoring
        retain = self.study.retain_styles(task)
        return anchors.anchor_candidates(
            scheme, task.forget, retain, anchoring.base, anchoring.group, anchoring.one_to_one
        )

    # Data

    @cached_method
    def slice(self, task: str) -> Run:
        """The forget and the retain set of a task."""
        definition = self.study.tasks[task]
        settings = SliceStage(
            forget=definition.forget,
            retain=self.study.retain_set(definition),
            objects=self.study.objects_of_training(definition),
            images=sorted(self.study.training_images),
        )
        return self._run("slices", task, settings, 1, {"images": self.world.images()})

    @cached_method
    def latents(self) -> Run:
        """The latent moments of every image that any task may train on."""
        study = self.study
        settings = LatentsStage(
            styles=study.world.styles,
            objects=study.training_objects,
            images=sorted(study.training_images),
            encoding=study.encoding,
        )
        inputs = {"images": self.world.images(), "pipeline": self.world.pipeline()}
        return self._run("latents", study.world.kind, settings, study.threads.world, inputs)

    @cached_method
    def embeddings(self, use: Literal["training", "evaluation"]) -> Run:
        """The base model's text embeddings of every concept, and of the prompt of guidance's unconditional prediction.

        Args:
            use: whether they are those of captions or of the prompts of sampled images.
        """
        return self._embeddings_of(self.world.pipeline(), use, self.study.world.kind)

    def _embeddings_of(self, pipeline: Run, use: Literal["training", "evaluation"], slug: str) -> Run:
        study, words = self.study, self.study.prompts
        if use == "training":
            wording, unconditional = words.in_training, EMPTY_CONCEPT
        else:
            wording, unconditional = words.in_evaluation, study.sampling.negative_prompt
        objects = study.training_objects
        if use == "evaluation":
            objects = [*objects, *study.evaluated_objects]  # images of anchors may be generated for training
        prompts = {wording.prompt(style, object_) for style in study.world.styles for object_ in objects}
        settings = EmbeddingsStage(prompts=sorted({unconditional, *prompts}))
        return self._run("embeddings", f"{slug}-{use}", settings, study.threads.world, {"pipeline": pipeline})

    # Grids

    def grid_of(self, task: str) -> list[SampleKey]:
        """The evaluation grid of a task in label order, with the styles that earlier tasks of its sequence forget."""
        definition = self.study.tasks[task]
        styles = self.study.styles_in_label_order(self.study.evaluated_styles(definition))
        objects = self.study.objects_of_evaluation(definition)
        return [
            (style, object_, seed)
            for style in styles
            for object_ in objects
            for seed in sorted(definition.evaluation.seeds)
        ]

    def grid_of_all_tasks(self) -> list[SampleKey]:
        """The union of the grids of all tasks, in label order."""
        images = {image for task in self.study.tasks for image in self.grid_of(task)}
        styles, objects = self.study.world.styles, self.study.evaluated_objects
        return sorted(images, key=lambda image: (styles.index(image[0]), objects.index(image[1]), image[2]))

    # Names

    def _slug(self, task: str, method: str, scheme: Scheme | None, seed: int | None) -> str:
        anchors = [anchors_in_words(self._scheme(task, method, scheme))] if self.study.has_anchors(method) else []
        seeds = [f"s{self._seed(method, seed)}"] if self.study.has_seeds(method) else []
        return "-".join([method, task, *anchors, *seeds])

    def _scheme(self, task: str, method: str, scheme: Scheme | None) -> Scheme:
        """A row's anchor scheme; the method's own if the row has none."""
        scheme = scheme or self.study.anchors_of(method, task)
        assert scheme is not None, "rows of a checked study have anchors for each task"
        return scheme

    def _slug_of_samples(self, task: str, method: str, scheme: Scheme | None, seed: int | None) -> str:
        return ORIGINAL if method == ORIGINAL else self._slug(task, method, scheme, seed)

    def _seed(self, method: str, seed: int | None) -> int:
        """A training seed; the first of the method's if it is None."""
        return self.study.seeds_of_method(method)[0] if seed is None else seed

    @property
    def _evaluation_threads(self) -> int:
        return self.study.threads.evaluation

    def _run(
        self,
        stage: str,
        slug: str,
        settings: Section,
        threads: int,
        inputs: Mapping[str, Run],
        places: Mapping[str, str] | None = None,
    ) -> Run:
        after = self._gates() if STAGES[stage].waits_for_gate else {}
        return self._factory.make(stage, slug, settings, threads, inputs, after, places)
