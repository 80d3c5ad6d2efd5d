"""From a study to its runs: which stages have to exist for a table or a figure, and what each of them reads.

Nothing here computes a result or looks at the disk; torch is never imported. Equal runs of different rows, tables and
studies are equal values with equal addresses, so they are built once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from corelib.errors import ConfigurationError
from corelib.runs.layout import REPOSITORY
from corelib.runs.run import Run, slugged
from corelib.sampling.grid import SampledImage
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.evaluation import CellsStage, FIDStage, PredictionsStage, ReferenceStage
from corelib.settings.gate import GateStage
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, Rendering
from corelib.settings.pretrained import PretrainedStage
from corelib.settings.prompts import EMPTY_CONCEPT
from corelib.settings.reports import FigureStage, TableRow, TableStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.settings.unlearn_canvas import AdoptionStage, ClassifierForm, ConversionStage
from corelib.settings.unlearning import SaliencyStage, UnlearningStage
from corelib.study import anchors
from corelib.study.schema import ORIGINAL, Scheme, Study, Task, UnlearnCanvasWorld
from corelib.study.shipped import DRAWING, digest_of_drawing
from corelib.worlds.unlearn_canvas.asset_lock import place_of

SCRIPTS = REPOSITORY / "workflow_scripts"

PIPELINE_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
"""What is needed of a diffusers pipeline beside its U-Net."""

TRAINING = ("saliency", "unlearning")
"""The stages that wait until the gate has let the base model pass."""

SAMPLING = "sample.py gather.py"
"""The scripts of the one stage that has two rules."""

once = functools.cache
"""Plans live as long as the process, so what their methods answered may too."""


class Plan:
    """The runs of one study. Every method answers with the same value when asked again.

    Args:
        name: what the study is called.
        study: what it says.
        published: the paper's numbers, as (table, task, row, metric, value, k, n).
        shipped: the record of the shipped world, for a study that takes it.
        locked: the sha256 of what is locked, by its place, for a study of the paper's world.
        slugs: of runs that are known already, by stage and beginning of the digest: an equal run of another name is
            one of those.
    """

    def __init__(
        self,
        name: str,
        study: Study,
        published: list[list[str]],
        shipped: Mapping[str, Any] | None = None,
        locked: Mapping[str, str] | None = None,
        slugs: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self.name = name
        self.study = study
        self.published = published
        self.shipped = shipped
        self.locked = locked or {}
        self.slugs = slugs or {}
        self._runs: dict[str, Run] = {}

    # What the user asks for

    @once
    def table(self, name: str) -> Run:
        """A table over the cells of its rows."""
        table = self.study.tables[name]
        rows, inputs = [], {}
        for task in table.tasks:
            for row in self.study.rows_of(table.rows):
                role = f"{task}/{row.name}"
                inputs[role] = self.cells(task, row.method, row.anchors)
                rows.append(TableRow(task=task, row=row.name, title=self.study.title_of(row), cells=role))
        settings = TableStage(
            name=name,
            rows=rows,
            published=[numbers for theirs, *numbers in self.published if theirs == table.published],
            comparable=self.study.world.kind == "unlearn_canvas",
        )
        return self._run("tables", "tabulate.py", f"{self.name}-{name}", settings, 1, inputs | self._gates())

    @once
    def figure(self, name: str) -> Run:
        """A grid of images over the samples of its columns."""
        figure = self.study.figures[name]
        rows = self.study.rows_of(figure.columns)
        settings = FigureStage(
            name=name,
            rows=[(style, object_) for style, object_ in figure.prompts],
            row_titles=[self._row_title(figure.task, style, object_) for style, object_ in figure.prompts],
            columns=[(row.name, self.study.title_of(row)) for row in rows],
            seed=figure.seed,
            pixels=figure.pixels,
        )
        inputs = {row.name: self.samples(figure.task, row.method, row.anchors) for row in rows}
        return self._run("figures", "draw.py", f"{self.name}-{name}", settings, 1, inputs)

    def _row_title(self, task: str, style: str, object_: str) -> str:
        kind = "Forgotten" if style in self.study.tasks[task].forget else "Kept"
        return f"{kind}: {self.study.prompts.in_evaluation.prompt(style, object_)}"

    def products(self) -> dict[str, Run]:
        """Every table and figure of the study and the report of its gate, by name."""
        tables = {name: self.table(name) for name in self.study.tables}
        figures = {name: self.figure(name) for name in self.study.figures}
        return tables | figures | ({} if self.study.gate is None else {"gate": self.gate_report()})

    # The gate

    @once
    def gate(self) -> Run:
        """The check of the original model against the paper's, behind which all training waits."""
        settings = self._gate_settings()
        inputs = {"cells": self.cells(settings.task, ORIGINAL, None)}
        return self._run("gate", "check_gate.py", f"{settings.task}-{settings.on_failure}", settings, 1, inputs)

    @once
    def gate_report(self) -> Run:
        """The same comparison as a page."""
        settings = self._gate_settings()
        inputs = {"cells": self.cells(settings.task, ORIGINAL, None)}
        return self._run("gates", "report_gate.py", f"{self.name}-gate", settings, 1, inputs)

    def _gate_settings(self) -> GateStage:
        counts: dict[str, dict[str, tuple[int, int]]] = {}
        for _, task, row, metric, _, k, n in self.published:
            if row == ORIGINAL and task in self.study.tasks and k:
                counts.setdefault(task, {})[metric] = int(k), int(n)
        if not counts:
            raise ConfigurationError(
                f"study {self.name}: gate is {self.study.gate!r}, expected null, since the paper says nothing of the "
                f"original model on the tasks {', '.join(self.study.tasks)}."
            )
        largest = max(counts, key=lambda task: sum(n for _, n in counts[task].values()))
        assert self.study.gate is not None
        return GateStage(task=largest, published=counts[largest], on_failure=self.study.gate)

    def _gates(self) -> dict[str, Run]:
        return {} if self.study.gate is None else {"gate": self.gate()}

    # Evaluation

    @once
    def cells(self, task: str, method: str, scheme: Scheme | None) -> Run:
        """The counts and values of one model on one task."""
        evaluation = self.study.tasks[task].evaluation
        settings = CellsStage(
            forget=self.study.styles_in_label_order(self.study.tasks[task].forget),
            retain=self.study.styles_in_label_order(evaluation.retain),
            objects=self.study.objects_of(evaluation.objects),
            seeds=sorted(evaluation.seeds),
        )
        inputs = {
            "predictions": self.predictions(task, method, scheme),
            "fid": self.fid(task, method, scheme),
            "fid_of_original": self.fid(task, ORIGINAL, None),
        }
        return self._run("cells", "count.py", self._slug(task, method, scheme), settings, 1, inputs)

    @once
    def fid(self, task: str, method: str, scheme: Scheme | None) -> Run:
        """The distance of one model's retain images to the real ones."""
        retain = set(self.study.tasks[task].evaluation.retain)
        settings = FIDStage(fid=self.study.fid, grid=[image for image in self.grid_of(task) if image[0] in retain])
        inputs = {
            "samples": self.samples(task, method, scheme),
            "reference": self.reference(task),
            **self._feature_extractors(),
        }
        return self._run("fid", "measure_fid.py", self._slug(task, method, scheme), settings, self._evaluating, inputs)

    @once
    def reference(self, task: str) -> Run:
        """The feature statistics of the real images of a task's retain cells."""
        evaluation = self.study.tasks[task].evaluation
        settings = ReferenceStage(
            fid=self.study.fid,
            styles=self.study.styles_in_label_order(evaluation.retain),
            objects=self.study.objects_of(evaluation.objects),
        )
        inputs = {"images": self.images(), **self._feature_extractors()}
        return self._run("reference", "summarize_reference.py", task, settings, self._evaluating, inputs)

    @once
    def predictions(self, task: str, method: str, scheme: Scheme | None) -> Run:
        """Style and object of every sampled image of one model."""
        settings = PredictionsStage(classification=self.study.classification)
        inputs = {
            "samples": self.samples(task, method, scheme),
            "style_classifier": self.classifier("style"),
            "object_classifier": self.classifier("object"),
        }
        slug = self._slug_of_samples(task, method, scheme)
        return self._run("predictions", "classify.py", slug, settings, self._evaluating, inputs)

    # Models and their images

    @once
    def samples(self, task: str, method: str, scheme: Scheme | None) -> Run:
        """The images of one model: an unlearned one on its task's grid, the original once for all tasks."""
        study = self.study
        settings = SamplesStage(
            sampling=study.sampling,
            wording=study.prompts.in_evaluation,
            grid=self.grid_of_all_tasks() if method == ORIGINAL else self.grid_of(task),
        )
        inputs = {"pipeline": self.pipeline(), "embeddings": self.embeddings("evaluation")}
        if method != ORIGINAL:
            inputs["delta"] = self.unlearning(task, method, scheme)
        slug = self._slug_of_samples(task, method, scheme)
        return self._run("samples", SAMPLING, slug, settings, study.threads.sampling, inputs)

    @once
    def unlearning(self, task: str, method: str, scheme: Scheme | None) -> Run:
        """The delta of one method on one task."""
        study, recipe = self.study, self.study.methods[method]
        candidates = self.candidates(study.tasks[task], scheme or recipe.anchors[task])
        settings = UnlearningStage(
            objective=recipe.objective,
            trained=recipe.trained,
            candidates=candidates,
            draw=study.anchoring.draw if any(len(found) > 1 for found in candidates.values()) else None,
            learning_rate=recipe.learning_rate * study.training.scale.learning_rate,
            batch=recipe.batch,
            length=recipe.length[task].times(study.training.scale.length),
            least_steps=study.training.scale.least_steps,
            epoch_counts=study.training.epoch_counts,
            reduction=study.training.reduction,
            optimizer=study.training.optimizer,
            wording=study.prompts.in_training,
            precision=study.training.precision,
            seed=study.training.seed,
        )
        inputs = self._material(task)
        if recipe.saliency is not None:
            inputs["saliency"] = self.saliency(task, method)
        if recipe.objective.unlearn.images == "generated":
            inputs["generated"] = self.generated(task, scheme or recipe.anchors[task])
        return self._run(
            "unlearning", "unlearn.py", self._slug(task, method, scheme), settings, study.threads.unlearning, inputs
        )

    @once
    def saliency(self, task: str, method: str) -> Run:
        """The mask of the weights that a method may change."""
        study, recipe = self.study, self.study.methods[method]
        assert recipe.saliency is not None
        settings = SaliencyStage(
            saliency=recipe.saliency,
            trained=recipe.trained,
            batch=recipe.batch,
            wording=study.prompts.in_training,
            precision=study.training.precision,
            seed=study.training.seed,
        )
        slug = f"{method}-{task}-s{study.training.seed}"
        return self._run("saliency", "find_salient.py", slug, settings, study.threads.unlearning, self._material(task))

    @once
    def generated(self, task: str, scheme: Scheme) -> Run:
        """The latents of images that the base model generates of a scheme's anchors: one for each training index."""
        study, chosen = self.study, self.study.tasks[task]
        anchors = {anchor for found in self.candidates(chosen, scheme).values() for anchor in found}
        settings = LatentsStage(
            styles=study.styles_in_label_order(list(anchors)),
            objects=study.objects_of(chosen.objects),
            images=sorted(study.training.images),
            encoding=study.encoding,
        )
        sampled = SamplesStage(
            sampling=study.sampling,
            wording=study.prompts.in_evaluation,
            grid=[
                (style, object_, index)
                for style in settings.styles
                for object_ in settings.objects
                for index in settings.images
            ],
        )
        slug, below = f"{task}-{scheme}", {"pipeline": self.pipeline(), "embeddings": self.embeddings("evaluation")}
        samples = self._run("samples", SAMPLING, f"anchors-{slug}", sampled, study.threads.sampling, below)
        inputs = {"samples": samples, "pipeline": self.pipeline()}
        return self._run("generated", "encode_generated.py", slug, settings, study.threads.world, inputs)

    def _material(self, task: str) -> dict[str, Run]:
        return {
            "pipeline": self.pipeline(),
            "slice": self.slice(task),
            "latents": self.latents(),
            "embeddings": self.embeddings("training"),
        }

    def candidates(self, task: Task, scheme: Scheme) -> dict[str, list[str]]:
        """The anchors of each forget style of a task."""
        anchoring = self.study.anchoring
        retain = self.study.retain_styles(task)
        return anchors.candidates(scheme, task.forget, retain, anchoring.base, anchoring.group, anchoring.one_to_one)

    # Data

    @once
    def slice(self, task: str) -> Run:
        """The forget and the retain set of a task."""
        chosen = self.study.tasks[task]
        settings = SliceStage(
            forget=chosen.forget,
            retain=self.study.retain_set(chosen),
            objects=self.study.objects_of(chosen.objects),
            images=sorted(self.study.training.images),
        )
        return self._run("slices", "slice.py", task, settings, 1, {"images": self.images()})

    @once
    def latents(self) -> Run:
        """The latent moments of every image that any task may train on."""
        study = self.study
        settings = LatentsStage(
            styles=study.world.styles,
            objects=study.world.objects,
            images=sorted(study.training.images),
            encoding=study.encoding,
        )
        inputs = {"images": self.images(), "pipeline": self.pipeline()}
        return self._run("latents", "encode.py", study.world.kind, settings, study.threads.world, inputs)

    @once
    def embeddings(self, use: Literal["training", "evaluation"]) -> Run:
        """The text embeddings of every concept, and of the prompt that guidance departs from."""
        study, words = self.study, self.study.prompts
        if use == "training":
            wording, guided_from = words.in_training, EMPTY_CONCEPT
        else:
            wording, guided_from = words.in_evaluation, study.sampling.negative_prompt
        prompts = {wording.prompt(style, object_) for style in study.world.styles for object_ in study.world.objects}
        settings = EmbeddingsStage(prompts=sorted({guided_from, *prompts}))
        slug, inputs = f"{study.world.kind}-{use}", {"pipeline": self.pipeline()}
        return self._run("embeddings", "embed.py", slug, settings, study.threads.world, inputs)

    # The world: the only place that knows which one it is

    @once
    def images(self) -> Run:
        """The benchmark's images."""
        world = self.study.world
        if world.kind == "unlearn_canvas":
            return self.adoption("images")
        settings = Rendering(
            styles=world.styles,
            objects=world.objects,
            photo_style=self.study.prompts.photo_style,
            images_per_cell=world.images_per_cell,
            resolution=world.resolution,
            jpeg_quality=world.jpeg_quality,
            seed=world.seed,
        )
        return self._run("images", "render.py", world.kind, settings, 1, {})

    @once
    def pipeline(self) -> Run:
        """The base model, a diffusers pipeline."""
        world, prompts = self.study.world, self.study.prompts
        if world.kind == "unlearn_canvas":
            return self.adoption("pipeline") if world.assets.compvis is None else self._conversion()
        if world.pretrained:
            return self._pretrained()
        captions = {
            style: {object_: prompts.in_training.prompt(style, object_) for object_ in world.objects}
            for style in world.styles
        }
        asked = [prompts.in_evaluation.prompt(style, object_) for style in world.styles for object_ in world.objects]
        words = {word for prompt in asked for word in prompt.split()}
        words |= {word for caption in captions.values() for prompt in caption.values() for word in prompt.split()}
        settings = PipelineStage(
            text_encoder=world.text_encoder,
            denoiser=world.denoiser,
            prompts=captions,
            vocabulary=sorted(words),
            seed=world.seed,
        )
        inputs = {"images": self.images(), "autoencoder": self._autoencoder()}
        return self._run("pipeline", "train_pipeline.py", world.kind, settings, self.study.threads.world, inputs)

    @once
    def classifier(self, label: str) -> Run:
        """The classifier of styles or of objects."""
        world = self.study.world
        if world.kind == "unlearn_canvas":
            return self.adoption(f"{label}_classifier")
        if world.pretrained:
            return self._pretrained()
        settings = ClassifierStage(
            label=label,
            classes=world.styles if label == "style" else world.objects,
            classifier=world.classifier,
            seed=world.seed,
        )
        slug = f"{world.kind}-{label}"
        return self._run(
            "classifier", "train_classifier.py", slug, settings, self.study.threads.world, {"images": self.images()}
        )

    def _feature_extractors(self) -> dict[str, Run]:
        if self.study.world.kind == "unlearn_canvas":
            network = "inception_torchvision" if self.study.fid.mode == "benchmark" else "inception"
            return {"inception": self.adoption(network)}
        return {"style_classifier": self.classifier("style"), "object_classifier": self.classifier("object")}

    @once
    def _autoencoder(self) -> Run:
        world = self.study.world
        assert world.kind == "miniature"
        settings = AutoencoderStage(autoencoder=world.autoencoder, resolution=world.resolution, seed=world.seed)
        inputs = {"images": self.images()}
        return self._run("autoencoder", "train_autoencoder.py", world.kind, settings, self.study.threads.world, inputs)

    @once
    def _pretrained(self) -> Run:
        assert self.shipped is not None, "the study takes the shipped world, of which the plan was told nothing"
        if self.shipped["drawing"] != digest_of_drawing():
            raise ConfigurationError(
                f"{' or '.join(DRAWING)}: its code has changed since the shipped world was trained on its images; "
                "restore it, or train another world with `world.pretrained: false`."
            )
        settings = PretrainedStage(files=self.shipped["files"], facts=self.shipped["facts"])
        return self._run("pretrained", "adopt_pretrained.py", self.study.world.kind, settings, 1, {})

    def assets(self) -> tuple[AdoptionStage, dict[str, str]]:
        """All of the user's assets that the study may need, and where each lies.

        Raises `ConfigurationError` in a world that makes everything itself.
        """
        used = self._papers_world.assets
        optional = [name for name in ("compvis", "inception_torchvision") if getattr(used, name) is not None]
        return self._taken(["images", "pipeline", "style_classifier", "object_classifier", "inception", *optional])

    @property
    def compvis_weights(self) -> Literal["raw", "ema"]:
        """Which weights of a CompVis file are used, if one is. Raises `ConfigurationError` as `assets` does."""
        return self._papers_world.assets.weights

    @once
    def adoption(self, asset: str) -> Run:
        """One of the user's assets, taken into use. Raises `ConfigurationError` as `assets` does."""
        settings, places = self._taken([asset])
        return self._run("assets", "adopt_assets.py", asset, settings, 1, {}, places)

    def _taken(self, names: list[str]) -> tuple[AdoptionStage, dict[str, str]]:
        world = self._papers_world
        assets = world.assets
        unet: Literal["unet", "unet_ema"] = "unet" if assets.weights == "raw" or assets.compvis else "unet_ema"
        parts = {"pipeline": [f"pipeline/{part}" for part in (unet, *PIPELINE_PARTS)]}
        places: dict[str, str] = {name: getattr(assets, name) for name in names}
        used = [part for name in names for part in parts.get(name, [name])]
        settings = AdoptionStage(
            sha256={name: self.locked.get(place_of(name, places)) for name in used},
            unet=unet if "pipeline" in names else None,
            classifiers={
                label: ClassifierForm(
                    architecture=assets.classifier_architecture,
                    resolution=assets.classifier_resolution,
                    classes=classes,
                )
                for label, classes in (("style", world.styles), ("object", world.objects))
                if f"{label}_classifier" in names
            },
        )
        return settings, places | ({"image_index": assets.image_index} if "images" in names else {})

    @property
    def _papers_world(self) -> UnlearnCanvasWorld:
        world = self.study.world
        if world.kind != "unlearn_canvas":
            raise ConfigurationError(
                f"study {self.name}: world.kind is {world.kind!r}, which makes everything itself; expected a study of "
                "the paper's world, which needs assets."
            )
        return world

    @once
    def _conversion(self) -> Run:
        weights = self._papers_world.assets.weights
        inputs = {"pipeline": self.adoption("pipeline"), "compvis": self.adoption("compvis")}
        settings = ConversionStage(weights=weights)
        return self._run("conversion", "convert_compvis.py", f"compvis-{weights}", settings, 1, inputs)

    # Grids

    def grid_of(self, task: str) -> list[SampledImage]:
        """The evaluation grid of a task in label order."""
        chosen = self.study.tasks[task]
        styles = self.study.styles_in_label_order(chosen.forget + chosen.evaluation.retain)
        objects = self.study.objects_of(chosen.evaluation.objects)
        return [
            (style, object_, seed)
            for style in styles
            for object_ in objects
            for seed in sorted(chosen.evaluation.seeds)
        ]

    def grid_of_all_tasks(self) -> list[SampledImage]:
        """The grids of all tasks together, each image once, in label order."""
        images = {image for task in self.study.tasks for image in self.grid_of(task)}
        world = self.study.world
        return sorted(images, key=lambda image: (world.styles.index(image[0]), world.objects.index(image[1]), image[2]))

    # Names

    def _slug(self, task: str, method: str, scheme: Scheme | None) -> str:
        if method == ORIGINAL:
            return f"{ORIGINAL}-{task}"
        return f"{method}-{task}-{scheme or self.study.methods[method].anchors[task]}-s{self.study.training.seed}"

    def _slug_of_samples(self, task: str, method: str, scheme: Scheme | None) -> str:
        return ORIGINAL if method == ORIGINAL else self._slug(task, method, scheme)

    @property
    def _evaluating(self) -> int:
        return self.study.threads.evaluation

    def _run(
        self,
        stage: str,
        scripts: str,
        slug: str,
        settings: Section,
        threads: int,
        inputs: dict[str, Run],
        places: Mapping[str, str] | None = None,
    ) -> Run:
        execution = self.study.execution
        after = self._gates() if stage in TRAINING else {}
        own = tuple(SCRIPTS / script for script in scripts.split())
        run = Run(stage, own, slugged(slug), settings, threads, inputs, after, places or {}, execution=execution)
        if (known := self.slugs.get((stage, run.digest[:12]), run.slug)) != run.slug:
            run = replace(run, slug=known)
        return self._runs.setdefault(run.digest, run)  # equal runs under two names are the one named first
