"""The runs that a world supplies: images, the base model, two classifiers, and the features of FID.

Both worlds have the same four methods; everything after them is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from corelib.errors import ConfigurationError
from corelib.runs.layout import REPOSITORY
from corelib.runs.run import Run
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, RenderingStage
from corelib.settings.pretrained import PretrainedStage
from corelib.settings.unlearn_canvas import AdoptionStage, ClassifierSpec, ConversionStage
from corelib.study.run_factory import RunFactory, cached_method
from corelib.study.schema import MiniatureWorld, Study, UnlearnCanvasWorld
from corelib.study.shipped_world import DRAWING_MODULES, digest_of_drawing
from corelib.worlds.unlearn_canvas.asset_lock import asset_path

SHIPPED_UNET = REPOSITORY / "config/pretrained/pipeline/unet"
"""The U-Net of the shipped world."""

PIPELINE_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
"""The parts of a diffusers pipeline that are used here, besides its U-Net."""


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
        world = self._world
        settings = RenderingStage(
            styles=world.styles,
            objects=world.objects,
            photo_style=self._study.prompts.photo_style,
            images_per_cell=world.images_per_cell,
            resolution=world.resolution,
            jpeg_quality=world.jpeg_quality,
            seed=world.seed,
        )
        return self._factory.make("images", world.kind, settings, 1, {})

    @cached_method
    def pipeline(self) -> Run:
        """The base model, a diffusers pipeline."""
        world, prompts = self._world, self._study.prompts
        if world.pretrained:
            return self._pretrained()
        captions = {
            style: {object_: prompts.in_training.prompt(style, object_) for object_ in world.objects}
            for style in world.styles
        }
        evaluated = [
            prompts.in_evaluation.prompt(style, object_) for style in world.styles for object_ in world.objects
        ]
        words = {word for prompt in evaluated for word in prompt.split()}
        words |= {word for caption in captions.values() for prompt in caption.values() for word in prompt.split()}
        settings = PipelineStage(
            text_encoder=world.text_encoder,
            denoiser=world.denoiser,
            prompts=captions,
            vocabulary=sorted(words),
            seed=world.seed,
        )
        inputs = {"images": self.images(), "autoencoder": self._autoencoder()}
        return self._factory.make("pipeline", world.kind, settings, self._study.threads.world, inputs)

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


class UnlearnCanvasRuns:
    """The paper's world, which adopts the user's files.

    Args:
        study: the study.
        world: its world.
        factory: creates the runs.
        locked: the sha256 of each locked asset, by its place.
    """

    is_comparable_with_paper = True
    """Whether its numbers may be compared with the paper's."""

    def __init__(self, study: Study, world: UnlearnCanvasWorld, factory: RunFactory, locked: Mapping[str, str]) -> None:
        self._study = study
        self._world = world
        self._factory = factory
        self._locked = locked

    def images(self) -> Run:
        """The images of UnlearnCanvas."""
        return self.adoption("images")

    def pipeline(self) -> Run:
        """The base model, a diffusers pipeline, with the weights of a CompVis checkpoint if there is one."""
        return self.adoption("pipeline") if self._world.assets.compvis is None else self._conversion()

    def classifier(self, label: str) -> Run:
        """The classifier of styles or of objects."""
        return self.adoption(f"{label}_classifier")

    @property
    def unet_folder(self) -> Path | None:
        """The diffusers folder of the base model's U-Net: its architecture, even if a CompVis file has the weights."""
        unet = "unet" if self._world.assets.weights == "raw" or self._world.assets.compvis else "unet_ema"
        return Path(self._world.assets.pipeline) / unet

    def feature_extractors(self) -> dict[str, Run]:
        """The network from which FID takes its features: an Inception network."""
        network = "inception_torchvision" if self._study.fid.mode == "benchmark" else "inception"
        return {"inception": self.adoption(network)}

    def assets(self) -> tuple[AdoptionStage, dict[str, str]]:
        """The adoption of all assets that the study may need, and the path of each asset."""
        assets = self._world.assets
        optional = [name for name in ("compvis", "inception_torchvision") if getattr(assets, name) is not None]
        return self._adoption_of(
            ["images", "pipeline", "style_classifier", "object_classifier", "inception", *optional]
        )

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
        world, assets = self._world, self._world.assets
        unet: Literal["unet", "unet_ema"] = "unet" if assets.weights == "raw" or assets.compvis else "unet_ema"
        parts = {"pipeline": [f"pipeline/{part}" for part in (unet, *PIPELINE_PARTS)]}
        places: dict[str, str] = {name: getattr(assets, name) for name in names}
        used = [part for name in names for part in parts.get(name, [name])]
        settings = AdoptionStage(
            sha256={name: self._locked.get(asset_path(name, places)) for name in used},
            unet=unet if "pipeline" in names else None,
            classifiers={
                label: ClassifierSpec(
                    architecture=assets.classifier_architecture,
                    resolution=assets.classifier_resolution,
                    classes=classes,
                )
                for label, classes in (("style", world.styles), ("object", world.objects))
                if f"{label}_classifier" in names
            },
        )
        return settings, places | ({"image_index": assets.image_index} if "images" in names else {})

    @cached_method
    def _conversion(self) -> Run:
        inputs = {"pipeline": self.adoption("pipeline"), "compvis": self.adoption("compvis")}
        settings = ConversionStage(weights=self.compvis_weights)
        return self._factory.make("conversion", f"compvis-{self.compvis_weights}", settings, 1, inputs)
