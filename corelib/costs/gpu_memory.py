"""GPU memory that jobs need, with the networks of Stable Diffusion v1.5 in 16 bits.

The tensors that exist at the same time were counted (`benchmarks/memory.py`), not measured. A GPU also holds what CUDA
and its libraries keep for themselves, and gaps between tensors.
"""

from __future__ import annotations

from collections.abc import Iterable

from corelib.costs.workload import STABLE_DIFFUSION, Countable, workload_of
from corelib.settings.sampling import SamplesStage
from corelib.settings.unlearning import UnlearningStage

TRAINING_BYTES, BYTES_PER_TRAINED_LATENT = 2.51e9, 1.03e9
"""Weights, their gradients and the state of Adam; and what each latent of a backward pass adds, at 512 pixels."""

SAMPLING_BYTES, BYTES_PER_PREDICTED_LATENT, BYTES_PER_DECODED_IMAGE = 2.05e9, 0.071e9, 0.81e9
"""Weights of U-Net and autoencoder; what each latent of a prediction adds; what each image that is decoded in fp32
adds."""

SPARE = 0.2
"""Fraction of a GPU's memory for everything that was not counted."""


def gpu_memory(run: Countable) -> float:
    """Peak memory of a training or of a shard of samples, in bytes; 0 for other stages, which need less."""
    match run.settings:
        case UnlearningStage():
            work = workload_of(run, STABLE_DIFFUSION)
            return TRAINING_BYTES + BYTES_PER_TRAINED_LATENT * work.train_passes / work.steps
        case SamplesStage(sampling=sampling):
            passes = 1 if sampling.guidance_scale == 1 else 2
            predicted = BYTES_PER_PREDICTED_LATENT * passes * sampling.batch
            decoded = BYTES_PER_DECODED_IMAGE * min(sampling.decoding.batch, sampling.batch)
            return SAMPLING_BYTES + max(predicted, decoded) * STABLE_DIFFUSION.area(sampling.resolution)
        case _:
            return 0.0


def largest_gpu_memory(runs: Iterable[Countable]) -> float:
    """Memory of the run that needs the most, in bytes; 0 if none of them trains or samples."""
    return max((gpu_memory(run) for run in runs), default=0.0)


def fits(needed: float, memory: float) -> bool:
    """Whether a GPU with so much memory, in bytes, has enough of it, with some to spare."""
    return needed <= (1 - SPARE) * memory
