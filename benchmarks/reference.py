"""A plain reference: unlearning and its evaluation as public baselines do them, with nothing shared and nothing cached.

    python benchmarks/reference.py STAGE JOB.json      one stage in a process of its own

In substance, the scripts that docs/baselines.md names: two U-Nets are loaded, the student and the
frozen teacher; each step reads its images from their files, encodes them with the autoencoder, embeds its prompts with
the text encoder, and makes a separate forward pass for each prompt. Images are sampled one at a time by diffusers'
pipeline. Each classifier reads every image again, one at a time. The Frechet distance takes a matrix square root.

The reference computes the same numbers as the stages of this repository, which tests/unit/benchmarks/test_reference.py
checks, but draws other random numbers.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging

logging.disable_progress_bar()


@dataclass(frozen=True)
class Pictured:
    """A training image: its file, its caption, and the caption of its anchor (empty for an image to retain)."""

    file: str
    caption: str
    anchor: str = ""


@dataclass(frozen=True)
class Job:
    """The work of all stages on one model.

    Attributes:
        pipeline: folder of the base model, in diffusers' layout.
        output: folder for the unlearned U-Net, the images and the results.
        forget, retain: the training images.
        steps, batch: number of training steps, and of forget (and retain) images in each.
        learning_rate: learning rate of Adam.
        resolution: side of the images in pixels.
        prompts: (file name, prompt, seed) of each image to sample.
        sampling_steps, guidance_scale: settings of the sampler.
        classifiers: for each label its weights, architecture, number of classes, and resolution.
        real: files of the real images with which the sampled ones are compared.
        compared: names of the sampled images that are compared with them.
        device: device of all networks.
        dtype: "fp32", or the format of autocast on a GPU.
    """

    pipeline: str
    output: str
    forget: list[Pictured]
    retain: list[Pictured]
    steps: int
    batch: int
    learning_rate: float
    resolution: int
    prompts: list[tuple[str, str, int]]
    sampling_steps: int
    guidance_scale: float
    classifiers: dict[str, tuple[str, str, int, int]]
    real: list[str]
    compared: list[str]
    device: str = "cpu"
    dtype: str = "fp32"

    def write(self, path: Path) -> None:
        """Write the job for another process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read a job that `write` wrote."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for side in ("forget", "retain"):
            content[side] = [Pictured(**one) for one in content[side]]
        return cls(**content)

    @property
    def images(self) -> Path:
        """Folder of the sampled images."""
        return Path(self.output) / "images"

    def autocast(self) -> Any:
        """A block that computes in the job's precision."""
        formats = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(self.device, dtype=formats[self.dtype], enabled=self.dtype != "fp32")


# Training


class Training:
    """CORE with two U-Nets, the text encoder and the autoencoder in every step."""

    def __init__(self, job: Job) -> None:
        self._job = job
        folder, device = job.pipeline, job.device
        self._tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self._text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder").to(device)
        self._autoencoder = AutoencoderKL.from_pretrained(folder, subfolder="vae").to(device)
        self._schedule = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        self.student = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").to(device)
        self._teacher = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").to(device)
        for network in (self._text_encoder, self._autoencoder, self.student, self._teacher):
            network.requires_grad_(False)
        trained = [parameter for name, parameter in self.student.named_parameters() if "attn2" in name]
        for parameter in trained:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.Adam(trained, lr=job.learning_rate)

    def step(self) -> float:
        """Train one step; return its loss."""
        forget = random.sample(self._job.forget, self._job.batch)
        retain = random.sample(self._job.retain, self._job.batch)
        with self._job.autocast():
            loss = self.loss(forget, *self._noisy(forget), anchored=True)
            loss = loss + self.loss(retain, *self._noisy(retain), anchored=False)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.item()

    def loss(self, images: Sequence[Pictured], noisy: Tensor, timesteps: Tensor, anchored: bool) -> Tensor:
        """The squared error of one side of a batch; the teacher predicts at the anchors, or at the own captions."""
        captions = [image.caption for image in images]
        wanted = [image.anchor for image in images] if anchored else captions
        target = self._predict_frozen(noisy, timesteps, wanted)
        return F.mse_loss(self._predict(self.student, noisy, timesteps, captions), target)

    @torch.no_grad()
    def _noisy(self, images: Sequence[Pictured]) -> tuple[Tensor, Tensor]:
        """x_t and t of images, which are read from their files and encoded."""
        pixels = torch.stack([read_pixels(image.file, self._job.resolution) for image in images]).to(self._job.device)
        latents = self._autoencoder.encode(pixels).latent_dist.sample() * self._autoencoder.config.scaling_factor
        noise = torch.randn_like(latents)
        count = self._schedule.config.num_train_timesteps
        timesteps = torch.randint(0, count, (len(images),), device=self._job.device)
        return self._schedule.add_noise(latents, noise, timesteps), timesteps

    def _predict(self, unet: Any, noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        """The noise that a U-Net predicts for captions, which are embedded first."""
        with torch.no_grad():
            tokens = self._tokenizer(
                captions,
                padding="max_length",
                truncation=True,
                max_length=self._tokenizer.model_max_length,
                return_tensors="pt",
            )
            embeddings = self._text_encoder(tokens.input_ids.to(self._job.device))[0]
        predicted: Tensor = unet(noisy, timesteps, encoder_hidden_states=embeddings).sample
        return predicted.float()

    @torch.no_grad()
    def _predict_frozen(self, noisy: Tensor, timesteps: Tensor, captions: list[str]) -> Tensor:
        return self._predict(self._teacher, noisy, timesteps, captions)


def read_pixels(file: str, resolution: int) -> Tensor:
    """An image as the autoencoder reads it, (3, side, side) in [-1, 1]."""
    image = Image.open(file).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((resolution, resolution), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def train(job: Job) -> None:
    """Train, and save the whole U-Net."""
    training = Training(job)
    for _ in range(job.steps):
        training.step()
    training.student.save_pretrained(Path(job.output) / "unet")


# Sampling


def sample(job: Job) -> None:
    """Sample every image of the unlearned model, or of the base model if there is none, one at a time."""
    pipeline = load_pipeline(job)
    job.images.mkdir(parents=True, exist_ok=True)
    for name, prompt, seed in job.prompts:
        noise = torch.Generator(job.device).manual_seed(seed)
        sample_image(job, pipeline, prompt, generator=noise).save(job.images / name, quality=75)


def load_pipeline(job: Job) -> StableDiffusionPipeline:
    """The pipeline with DDIM, and with the unlearned U-Net if there is one."""
    folder = Path(job.pipeline)
    unet = Path(job.output) / "unet"
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(unet if unet.exists() else folder / "unet"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(job.device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample_image(job: Job, pipeline: StableDiffusionPipeline, prompt: str, **options: Any) -> Image.Image:
    """One image; `options` are those of the pipeline, such as `latents` or `generator`."""
    with job.autocast():
        return pipeline(
            prompt,
            height=job.resolution,
            width=job.resolution,
            num_inference_steps=job.sampling_steps,
            guidance_scale=job.guidance_scale,
            **options,
        ).images[0]


# Classification


def classify(job: Job, label: str) -> list[int]:
    """The predicted class of each sampled image, one image at a time."""
    network, side = load_classifier(job, label)
    return [predict_class(network, job.images / name, side, job.device) for name, _, _ in job.prompts]


def load_classifier(job: Job, label: str) -> tuple[Any, int]:
    """A classifier, and the resolution of its images."""
    weights, architecture, classes, side = job.classifiers[label]
    network = timm.create_model(architecture, pretrained=False, num_classes=classes)
    content = torch.load(weights, weights_only=True, map_location="cpu")
    network.load_state_dict(content.get("model_state_dict", content))
    return network.eval().to(job.device), side


@torch.no_grad()
def predict_class(network: Any, file: Path, side: int, device: str) -> int:
    """The class of one image."""
    image = Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
    return int(network(((pixels - 0.5) / 0.5)[None].to(device)).argmax())


def classify_both(job: Job) -> tuple[list[int], list[int]]:
    """Both classifiers, one after the other, each reading all images."""
    return classify(job, "style"), classify(job, "object")


# FID


def fid(job: Job) -> float:
    """The Frechet distance between the sampled and the real images."""
    sampled = features(job, [str(job.images / name) for name in job.compared])
    return frechet_distance(sampled, features(job, job.real))


@torch.no_grad()
def features(job: Job, files: Sequence[str], batch: int = 50) -> np.ndarray:
    """The pooled features of both classifiers, (images, d)."""
    networks = [load_classifier(job, label)[0] for label in ("style", "object")]
    parts = []
    for start in range(0, len(files), batch):
        images = [np.asarray(Image.open(file).convert("RGB"), np.float32) for file in files[start : start + batch]]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(job.device)
        pixels = (pixels / 255 - 0.5) / 0.5
        pooled = [network.forward_head(network.forward_features(pixels), pre_logits=True) for network in networks]
        parts.append(torch.cat(pooled, dim=1).cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def frechet_distance(sampled: np.ndarray, real: np.ndarray) -> float:
    """||mu_1 - mu_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)), with SciPy's matrix square root."""
    difference = sampled.mean(axis=0) - real.mean(axis=0)
    first, second = np.cov(sampled, rowvar=False), np.cov(real, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    return float(difference @ difference + np.trace(first + second - 2 * np.real(root)))


# Processes

STAGES = {
    "train": train,
    "sample": sample,
    "classify-style": lambda job: classify(job, "style"),
    "classify-object": lambda job: classify(job, "object"),
    "fid": fid,
}
"""The stages in order; each is a process of its own, as the scripts of public baselines are."""


def main(stage: str, path: str, threads: str = "1") -> None:
    """Run one stage; write its numbers beside the images."""
    torch.set_num_threads(int(threads))
    job = Job.read(Path(path))
    Path(job.output).mkdir(parents=True, exist_ok=True)
    result = STAGES[stage](job)
    Path(job.output, f"{stage}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
