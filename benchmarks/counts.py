"""Count what one training step asks of a GPU, on a machine without one.

    python benchmarks/counts.py

Takes steps of CORE, as the workflow does, with networks whose tensors have shapes and a device but no values. Work on
the host runs as usual. For each size, prints the numbers in a step in which nothing is logged or saved:

- synchronisations: how often the host waits for the GPU,
- copies between host and GPU,
- operations on the GPU in the forward passes, the loss and the optimiser: views and allocations do not count,
- casts among them, and those of frozen tensors: tensors that do not train and were cast in the step before, too.

The backward pass is not counted: torch has no stream for a GPU that is not there. It adds operations, and neither
copies nor synchronisations. Attention counts as its separate operations, which a GPU fuses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from corelib.data.embeddings import EmbeddingCache  # noqa: E402
from corelib.data.latents import LatentCache, Moments  # noqa: E402
from corelib.data.slices import Slice, product_pairs  # noqa: E402
from corelib.models.student_teacher import ComputeDevice, StudentAndTeacher  # noqa: E402
from corelib.runs import progress  # noqa: E402
from corelib.settings.unlearning import Length, TrainingSettings  # noqa: E402
from corelib.study.loading import load_study  # noqa: E402
from corelib.unlearning.trainer import Trainer  # noqa: E402
from corelib.unlearning.training_data import TrainingData  # noqa: E402

GPU = torch.device("cuda")
FORGET, RETAIN, OBJECT, IMAGES = "Van_Gogh", "Monet", "Dogs", [1, 2, 3, 4, 5, 6, 7, 8]


@dataclass(frozen=True)
class Size:
    """The networks of a world.

    Attributes:
        unet: configuration of the U-Net.
        tokens: number of tokens of a prompt.
    """

    unet: dict[str, Any]
    tokens: int


SIZES = {
    "miniature": Size(json.loads((REPOSITORY / "config/pretrained/pipeline/unet/config.json").read_text()), 12),
    "Stable Diffusion v1.5": Size({"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}, 77),
}


@dataclass
class Counts:
    """Numbers in one step."""

    synchronisations: int = 0
    copies: int = 0
    operations: int = 0
    casts: int = 0
    casts_of_frozen: int = 0


def main() -> None:
    """Print a table of the sizes."""
    print(f"{'':<24}{'sync.':>8}{'copies':>8}{'operations':>12}{'casts':>8}{'of frozen tensors':>19}")
    for name, size in SIZES.items():
        counts = count_step(size)
        numbers = f"{counts.synchronisations:>8}{counts.copies:>8}{counts.operations:>12}{counts.casts:>8}"
        print(f"{name:<24}{numbers}{counts.casts_of_frozen:>19}", flush=True)


def count_step(size: Size) -> Counts:
    """The numbers in the third step of CORE in bf16."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        with GPU:
            unet = unet_of(size)
        counter = _Counter()
        with (
            counter,
            _no_gpu(),
            mock.patch.object(Tensor, "backward", counter.instead(lambda: _fill_gradients(unet))),
            mock.patch.object(progress, "MIN_INTERVAL", progress.MAX_INTERVAL),  # nothing is logged
        ):
            _take_steps(make_trainer(unet, size, _Device()), counter)
    return counter.counts


class _Counted(Exception):
    """The counted step has ended."""


def _take_steps(trainer: Trainer, counter: _Counter) -> None:
    def after_step(done: int) -> bool:
        if done == 3:
            raise _Counted
        counter.begin_step()
        return False

    try:
        trainer.train(0, after_step)
    except _Counted:
        return
    raise AssertionError("the training is shorter than the steps to count")


def _fill_gradients(unet: UNet2DConditionModel) -> None:
    """Instead of the backward pass."""
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


def unet_of(size: Size) -> UNet2DConditionModel:
    """A U-Net of tensors without values, which cannot be moved to another device."""
    unet = UNet2DConditionModel.from_config(size.unet)
    unet.to = lambda _: unet
    return unet


def make_trainer(unet: UNet2DConditionModel, size: Size, device: ComputeDevice, pairs: int | None = None) -> Trainer:
    """The trainer of CORE on its device; with its own number of forget pairs in a step if `pairs` is None."""
    study = load_study("paper", REPOSITORY / "config")
    core, training = study.methods["core"], study.training
    settings = TrainingSettings(
        objective=core.objective,
        trained=core.trained,
        candidates={FORGET: [RETAIN]},
        draw=None,
        learning_rate=core.learning_rate,
        batch=pairs or core.batch,
        length=Length(steps=10),
        min_steps=1,
        batch_counts=training.batch_counts,
        reduction=training.reduction,
        optimizer=training.optimizer,
        kernels=training.kernels,
        seed=0,
    )
    forget, retain = (product_pairs([style], [OBJECT], IMAGES) for style in (FORGET, RETAIN))
    prompts = [f"{style} {OBJECT}" for style in (FORGET, RETAIN)]
    with unset_fake_temporarily():
        shape = (len(forget + retain), unet.config["in_channels"], *2 * [unet.config["sample_size"]])
        latents = LatentCache(forget + retain, Moments(torch.zeros(shape), torch.ones(shape)), 0.18215, [], "counts")
        embeddings = torch.zeros(len(prompts), size.tokens, unet.config["cross_attention_dim"])
        scheduler = DDIMScheduler()
    data = TrainingData(
        Slice(forget, retain, {}),
        latents,
        None,
        EmbeddingCache(prompts, embeddings, "counts"),
        lambda style, object_: f"{style} {object_}",
        scheduler.alphas_cumprod,
    )
    return Trainer(settings, StudentAndTeacher(unet, core.trained, device), data, scheduler, {})


class _Device:
    """A GPU that computes in bf16."""

    torch_device = GPU
    dtype = torch.bfloat16

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """As `torch.autocast`, which does nothing where there is no GPU."""
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", self.dtype)
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", False)


_PINNED: set[int] = set()
"""Addresses of the memory that was asked to be pinned."""


@contextmanager
def _no_gpu() -> Iterator[None]:
    """Remember pinned memory, which only a machine with a GPU can pin."""
    empty = torch.empty

    def remembering(*arguments: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        tensor = empty(*arguments, **options)
        if pin_memory:
            _PINNED.add(tensor.untyped_storage().data_ptr())
        return tensor

    with mock.patch.object(torch, "empty", remembering):
        yield
    _PINNED.clear()


class _Counter(TorchDispatchMode):
    """Counts the operations on tensors of the GPU; those on the host compute their values."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        # the tensors that steps cast, by identity; they stay alive so that no other tensor gets the same one
        self._before: dict[int, Tensor] = {}
        self._now: dict[int, Tensor] = {}
        self._is_skipping = False

    def begin_step(self) -> None:
        """Count anew."""
        self.counts = Counts()
        self._before, self._now = self._now, {}

    def instead(self, work: Callable[[], None]) -> Callable[..., None]:
        """A function that does some work that is not counted, to replace another."""

        def replacement(*_: Any) -> None:
            self._is_skipping = True
            work()
            self._is_skipping = False

        return replacement

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        on_gpu = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor) and leaf.device == GPU_0]
        target = kwargs.get("device")
        if not on_gpu and (target is None or torch.device(target).type != GPU.type):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if not self._is_skipping:
            self._count(func, args, kwargs, bool(on_gpu))
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0.0  # a flag that is not set
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: Any, reads_gpu: bool) -> None:
        if func is torch.ops.aten._local_scalar_dense.default or torch.Tag.dynamic_output_shape in func.tags:
            self.counts.synchronisations += 1
            self.counts.copies += 1
            return
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
            target = kwargs.get("device", source.device) if func is torch.ops.aten._to_copy.default else args[0].device
            if source.device.type != torch.device(target).type:
                self._count_copy(source, kwargs.get("non_blocking", len(args) > 2 and args[2]))
                return
            if kwargs.get("dtype", source.dtype) != source.dtype:
                self.counts.casts += 1
                if not source.requires_grad:
                    self.counts.casts_of_frozen += id(source) in self._before
                    self._now[id(source)] = source
        if not _is_view(func) and not func.name().startswith(("aten::empty", "aten::detach", "prim::")):
            self.counts.operations += 1

    def _count_copy(self, source: Tensor, non_blocking: bool) -> None:
        """The host waits unless the copy is asynchronous; from memory that is not pinned, it cannot be."""
        self.counts.copies += 1
        is_pinned = source.device.type == "cpu" and source.untyped_storage().data_ptr() in _PINNED
        self.counts.synchronisations += not (non_blocking and is_pinned)


GPU_0 = torch.device("cuda:0")


def _is_view(func: Any) -> bool:
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


if __name__ == "__main__":
    main()
