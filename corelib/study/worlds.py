"""The runs that a world supplies: images, the base model, classifiers, and the features of FID.

All worlds have the same four methods; everything after them is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from corelib.errors import ConfigurationError
from corelib.runs.layout import REPOSITORY
from corelib.runs.run import Run
from corelib.settings.assets import AdoptionStage, ClassifierSpec, ConversionStage, ZeroShotSpec
from corelib.settings.evaluation import LABELS
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, RenderingStage
from corelib.settings.pretrained import PretrainedStage
from corelib.settings.retraining import RetrainingStage
from corelib.study.run_factory import RunFactory, cached_method
from corelib.study.schema import ImageFolderWorld, MiniatureWorld, Study, UnlearnCanvasWorld
from corelib.study.shipped_world import DRAWING_MODULES, digest_of_drawing
from corelib.worlds.assets.asset_lock import asset_path

SHIPPED_UNET = REPOSITORY / "config/pretrained/pipeline/unet"
"""The U-Net of the shipped world."""

PIPELINE_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
"""The parts of a diffusers pipeline that are used here, besides its U-Net."""


MINIATURE_NOTE = (
    "These are numbers of the miniature: they test the code, and do not show how the methods compare on the "
    "paper's model."
)

ZERO_SHOT_NOTE = (
    "CLIP recognises the images without training on their classes (zero-shot); it confuses classes more often than a "
    "trained classifier, so compare each row with the original model's."
)


class MiniatureRuns:
    """The miniature: it draws its images and trains its networks, or uses the shipped networks.

    Args:
        study: the study.
        world: its world.
        factory: creates the runs.
        shipped: the record of the shipped world, for a study that uses it.
    """

    is_comparable_with_paper = False
    """Whether its numbers may be compared with the paper's."""

    note = MINIATURE_NOTE
    """What tables say about its numbers."""

    def __init__(
        self, study: Study, world: MiniatureWorld, factory: RunFactory, shipped: Mapping[str, Any] | None
    ) -> None:
        self._study = study
        self._world = world
        self._factory = factory
        self._shipped = shipped

    @cached_method
    def images(self) -> Run:
        """The drawn images."""
        world, photo_style = self._world, self._study.prompts.photo_style
        assert photo_style is not None, "a checked study of the miniature has photos"
        settings = RenderingStage(
            styles=world.styles,
            objects=world.objects,
            photo_style=photo_style,
            images_per_cell=world.images_per_cell,
            resolution=world.resolution,
            jpeg_quality=world.jpeg_quality,
            seed=world.seed,
        )
        return self._factory.make("images", world.kind, settings, 1, {})

    @cached_method
    def pipeline(self) -> Run:
        """The base model, a diffusers pipeline."""
        world = self._world
        if world.pretrained:
            return self._pretrained()
        inputs = {"images": self.images(), "autoencoder": self._autoencoder()}
        return self._factory.make("pipeline", world.kind, self._training(), self._study.threads.world, inputs)

    @cached_method
    def retrained(self, slug: str, forget: tuple[str, ...], seed: int) -> Run:
        """The base model, trained again without the images of some styles, with the base model's autoencoder.

        Args:
            slug: readable part of the run's name.
            forget: the styles that are left out.
            seed: the training seed, which is added to the world's.
        """
        training = self._training().model_dump()
        settings = RetrainingStage.model_validate(training | {"forget": list(forget), "seed": self._world.seed + seed})
        inputs = {"images": self.images(), "pipeline": self.pipeline()}
        return self._factory.make("retrained", slug, settings, self._study.threads.world, inputs)

    def _training(self) -> PipelineStage:
        """The settings of the training of the base model."""
        world, prompts = self._world, self._study.prompts
        captions = {
            style: {object_: prompts.in_training.prompt(style, object_) for object_ in world.objects}
            for style in world.styles
        }
        evaluated = [
            prompts.in_evaluation.prompt(style, object_) for style in world.styles for object_ in world.objects
        ]
        words = {word for prompt in evaluated for word in prompt.split()}
        words |= {word for caption in captions.values() for prompt in caption.values() for word in prompt.split()}
        return PipelineStage(
            text_encoder=world.text_encoder,
            denoiser=world.denoiser,
            prompts=captions,
            vocabulary=sorted(words),
            seed=world.seed,
        )

    @cached_method
    def classifier(self, label: str) -> Run:
        """The classifier of styles or of objects."""
        world = self._world
        if world.pretrained:
            return self._pretrained()
        settings = ClassifierStage(
            label=label,
            classes=world.styles if label == "style" else world.objects,
            classifier=world.classifier,
            seed=world.seed,
        )
        inputs = {"images": self.images()}
        return self._factory.make("classifier", f"{world.kind}-{label}", settings, self._study.threads.world, inputs)

    @property
    def unet_folder(self) -> Path | None:
        """The diffusers folder of the base model's U-Net; None if the study trains it."""
        return SHIPPED_UNET if self._world.pretrained else None

    def feature_extractors(self) -> dict[str, Run]:
        """The networks from which FID takes its features: both classifiers."""
        return {"style_classifier": self.classifier("style"), "object_classifier": self.classifier("object")}

    @cached_method
    def _autoencoder(self) -> Run:
        world = self._world
        settings = AutoencoderStage(autoencoder=world.autoencoder, resolution=world.resolution, seed=world.seed)
        inputs = {"images": self.images()}
        return self._factory.make("autoencoder", world.kind, settings, self._study.threads.world, inputs)

    @cached_method
    def _pretrained(self) -> Run:
        assert self._shipped is not None, "a study that uses the shipped world, without its record"
        if self._shipped["drawing"] != digest_of_drawing():
            raise ConfigurationError(
                f"{' or '.join(DRAWING_MODULES)}: its code has changed since the shipped world was trained on its "
                "images; restore it, or train another world with `world.pretrained: false`."
            )
        settings = PretrainedStage(files=self._shipped["files"], facts=self._shipped["facts"])
        return self._factory.make("pretrained", self._world.kind, settings, 1, {})


class AssetRuns:
    """The paper's world, or one of the user's own images: it adopts the user's files.

    Args:
        study: the study.
        world: its world.
        factory: creates the runs.
        locked: the sha256 of each locked asset, by its place.
    """

    def __init__(
        self, study: Study, world: UnlearnCanvasWorld | ImageFolderWorld, factory: RunFactory, locked: Mapping[str, str]
    ) -> None:
        self._study = study
        self._world = world
        self._factory = factory
        self._locked = locked

    @property
    def is_comparable_with_paper(self) -> bool:
        """Whether its numbers may be compared with the paper's."""
        return self._world.kind == "unlearn_canvas"

    @property
    def note(self) -> str:
        """What tables say about its numbers."""
        return "" if self._world.assets.clip is None else ZERO_SHOT_NOTE

    def images(self) -> Run:
        """The real images."""
        return self.adoption("images")

    def pipeline(self) -> Run:
        """The base model, a diffusers pipeline, with the weights of a CompVis checkpoint if there is one."""
        return self.adoption("pipeline") if self._world.assets.compvis is None else self._conversion()

    def classifier(self, label: str) -> Run | None:
        """The classifier of styles or of objects; None if there is none."""
        asset = self._classifier_asset(label)
        return None if asset is None else self.adoption(asset)

    def _classifier_asset(self, label: str) -> str | None:
        """The asset that recognises a label; None if there is none, or if the world has no objects to recognise."""
        if label == "object" and not self._world.objects:
            return None
        if self._world.assets.clip is not None:
            return "clip"
        asset = f"{label}_classifier"
        return None if getattr(self._world.assets, asset) is None else asset

    @property
    def unet_folder(self) -> Path | None:
        """The diffusers folder of the base model's U-Net: its architecture, even if a CompVis file has the weights."""
        unet = "unet" if self._world.assets.weights == "raw" or self._world.assets.compvis else "unet_ema"
        return Path(self._world.assets.pipeline) / unet

    def feature_extractors(self) -> dict[str, Run]:
        """The network from which FID takes its features: an Inception network; empty if there is none."""
        if self._world.assets.inception is None and self._study.fid.mode != "benchmark":
            return {}
        network = "inception_torchvision" if self._study.fid.mode == "benchmark" else "inception"
        return {"inception": self.adoption(network)}

    def assets(self) -> tuple[AdoptionStage, dict[str, str]]:
        """The adoption of all assets that the study may need, and the path of each asset."""
        judges = dict.fromkeys(asset for label in LABELS if (asset := self._classifier_asset(label)) is not None)
        optional = ("inception", "compvis", "inception_torchvision")
        present = [name for name in optional if getattr(self._world.assets, name) is not None]
        return self._adoption_of(["images", "pipeline", *judges, *present])

    @property
    def compvis_weights(self) -> Literal["raw", "ema"]:
        """The weights of a CompVis checkpoint that are used, if there is a checkpoint."""
        return self._world.assets.weights

    @cached_method
    def adoption(self, asset: str) -> Run:
        """The adoption of one of the user's assets."""
        settings, places = self._adoption_of([asset])
        return self._factory.make("assets", asset, settings, 1, {}, places=places)

    def _adoption_of(self, names: list[str]) -> tuple[AdoptionStage, dict[str, str]]:
        assets = self._world.assets
        unet: Literal["unet", "unet_ema"] = "unet" if assets.weights == "raw" or assets.compvis else "unet_ema"
        parts = {"pipeline": [f"pipeline/{part}" for part in (unet, *PIPELINE_PARTS)]}
        places: dict[str, str] = {name: getattr(assets, name) for name in names}
        used = [part for name in names for part in parts.get(name, [name])]
        settings = AdoptionStage(
            sha256={name: self._locked.get(asset_path(name, places)) for name in used},
            unet=unet if "pipeline" in names else None,
            classifiers={
                label: self._classifier_spec(label) for label in LABELS if self._classifier_asset(label) in names
            },
        )
        return settings, places | ({"image_index": assets.index_path} if "images" in names else {})

    def _classifier_spec(self, label: str) -> ClassifierSpec | ZeroShotSpec:
        world = self._world
        classes = self._classes(label)
        if isinstance(world, ImageFolderWorld) and world.assets.clip is not None:
            wording = self._study.prompts.in_evaluation
            texts = world.zero_shot
            if label == "style":
                prompts = [texts.concept.format(concept=wording.words(name)) for name in classes]
            else:
                prompts = [texts.object.format(object=name.replace("_", " ")) for name in classes]
            return ZeroShotSpec(classes=classes, prompts=prompts)
        return ClassifierSpec(
            architecture=world.assets.classifier_architecture,
            resolution=world.assets.classifier_resolution,
            classes=classes,
        )

    def _classes(self, label: str) -> list[str]:
        """The classes of a classifier in the order of its outputs."""
        world = self._world
        if isinstance(world, ImageFolderWorld):
            own = world.classes.concept if label == "style" else world.classes.object
            if own is not None:
                return own
        return world.styles if label == "style" else world.objects

    @cached_method
    def _conversion(self) -> Run:
        inputs = {"pipeline": self.adoption("pipeline"), "compvis": self.adoption("compvis")}
        settings = ConversionStage(weights=self.compvis_weights)
        return self._factory.make("conversion", f"compvis-{self.compvis_weights}", settings, 1, inputs)
