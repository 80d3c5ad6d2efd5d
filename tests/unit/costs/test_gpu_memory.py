"""GPU memory that jobs need: as counted, and compared with a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
from support.checkout import REPOSITORY

from corelib.commands import preflight
from corelib.costs import gpu_memory as module
from corelib.costs.gpu_memory import fits, gpu_memory, largest_gpu_memory
from corelib.study.loading import load_plan

PLAN = load_plan("paper", REPOSITORY / "config")


def test_a_core_step_and_a_batch_of_samples_fit_24_gb_with_20_percent_to_spare() -> None:
    training, samples = PLAN.unlearning("Forget01", "core", None), PLAN.samples("Forget01", "core", None, 0)
    assert 5e9 < gpu_memory(training) < 24e9 and fits(gpu_memory(training), 24e9)
    assert 5e9 < gpu_memory(samples) < 24e9 and fits(gpu_memory(samples), 24e9)
    assert largest_gpu_memory([training, samples, samples.inputs["embeddings"]]) == max(
        gpu_memory(training), gpu_memory(samples)
    )


def test_memory_grows_with_the_batch_and_with_the_predictions_that_have_gradients() -> None:
    core, esd = (PLAN.unlearning("Forget01", method, None) for method in ("core", "esd"))
    larger = replace(core, settings=core.settings.model_copy(update={"batch": 8}))  # type: ignore[attr-defined]
    assert gpu_memory(larger) - gpu_memory(core) == pytest.approx(8 * module.BYTES_PER_TRAINED_LATENT)
    assert gpu_memory(core) - gpu_memory(esd) == pytest.approx(7 * module.BYTES_PER_TRAINED_LATENT)


@pytest.mark.parametrize(("memory", "kind"), [(80e9, "ok"), (22e9, "note"), (16e9, "FAULT")])
def test_preflight_compares_the_largest_job_with_the_gpu(memory: float, kind: str) -> None:
    finding = preflight._memory(18e9, int(memory))
    assert finding.kind == kind and finding.said.startswith("the largest job needs about 18 GB of the GPU's")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "benchmarks"), *sys.path])
    import memory

    size: Any = memory.SIZES["Stable Diffusion v1.5"]
    training = module.TRAINING_BYTES + 8 * module.BYTES_PER_TRAINED_LATENT
    assert memory.training_bytes(size, 4) == pytest.approx(training, rel=0.02)
    unet, autoencoder = 1.72e9, 0.33e9  # the weights, in 16 bits and in fp32
    predicted = module.SAMPLING_BYTES + 32 * module.BYTES_PER_PREDICTED_LATENT
    assert memory.prediction_bytes(size, 32) + autoencoder == pytest.approx(predicted, rel=0.02)
    decoded = module.SAMPLING_BYTES + 4 * module.BYTES_PER_DECODED_IMAGE
    assert memory.decoding_bytes(4) + unet == pytest.approx(decoded, rel=0.02)
