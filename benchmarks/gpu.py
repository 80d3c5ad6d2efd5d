"""All checks of a GPU in one run of at most nine minutes: correctness, speed and memory, as a page of Markdown.

    python benchmarks/gpu.py [--minutes 9] [--report benchmark/gpu.md] [--folder FOLDER] [--smoke]

It needs one GPU with 24 GB, 16 GB of memory, 10 GB of disk, and the pinned environment, but no network: the networks
are those of Stable Diffusion v1.5 with random weights. A part that fails, or for which the time does not suffice, is
named in the report and in the exit status. `--smoke` runs every part with small networks, also on a CPU; it shows that
the script works, and its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from support.full_format import FULL, REDUCED  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_post_hook  # noqa: E402

from benchmarks.full_world import FullWorld, comparisons  # noqa: E402
from benchmarks.measurement import matmul_peak, measure, synchronize  # noqa: E402
from corelib.costs.workload import FLOP_COSTS, Workload  # noqa: E402
from corelib.errors import Interrupted  # noqa: E402
from corelib.files.torch_files import read_safetensors  # noqa: E402
from corelib.models.delta import DELTA_FILE  # noqa: E402
from corelib.runs.manifest import Manifest  # noqa: E402
from corelib.settings.kernels import Kernels  # noqa: E402
from corelib.settings.precision import TrainingPrecision  # noqa: E402
from corelib.settings.unlearning import UnlearningStage  # noqa: E402

IS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if IS_GPU else "cpu"

MAX_DELTA_DIFFERENCE = 0.05
"""Largest relative difference of the deltas of two devices after a few steps in fp32. Adam's first steps have the size
of the learning rate whatever the gradient is, so that a gradient near zero may change its sign."""

MAX_IMAGE_DIFFERENCE = 1.0
"""Largest mean difference of the images of two devices in fp32, in grey levels."""

CPU_STEPS = 4
"""Training and sampling steps of the comparison with a CPU."""


@dataclass(frozen=True)
class Size:
    """How much work the parts do.

    Attributes:
        steps: training steps of each run.
        warm_up: steps that are not timed.
        images, sampling_steps: images of a batch, and DDIM steps.
        side: side of the matrices that are multiplied.
    """

    steps: int
    warm_up: int
    images: int
    sampling_steps: int
    side: int


FULL_SIZE, SMOKE_SIZE = Size(80, 20, 16, 100, 8192), Size(6, 2, 2, 2, 64)


@dataclass
class Checks:
    """The parts of the report, in order. Each returns its lines, and raises `AssertionError` if a check fails.

    Args:
        folder: folder for all files.
        smoke: whether the networks are small.
    """

    folder: Path
    smoke: bool
    deltas: dict[str, Manifest] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    step_seconds: float = 0.0
    run_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.size = SMOKE_SIZE if self.smoke else FULL_SIZE
        self._world: FullWorld | None = None

    @property
    def world(self) -> FullWorld:
        """The inputs of all parts."""
        if self._world is None:
            place = self.folder / "world"
            place.mkdir()
            width, resolution = (REDUCED, 64) if self.smoke else (FULL, 512)
            self._world = FullWorld(place, width, resolution, DEVICE)
        return self._world

    # The parts

    def peak(self) -> list[str]:
        """The device's measured peak."""
        formats = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
        for name, dtype in formats.items():
            self.peaks[name] = matmul_peak(DEVICE, dtype, self.size.side, 3)
        return [f"- {name}: {peak / 1e12:,.1f} TFLOP/s" for name, peak in self.peaks.items()]

    def build(self) -> list[str]:
        """The inputs: networks, latents, embeddings."""
        began = time.monotonic()
        unet = self.world.folder / "assets/pipeline/unet"
        size = sum(path.stat().st_size for path in unet.iterdir())
        return [f"- built, written, read and encoded in {time.monotonic() - began:.0f} s; U-Net {size / 1e9:.2f} GB"]

    def training(self) -> list[str]:
        """A CORE run: time of a step, memory, share of the peak."""
        with _peak_memory() as memory:
            began = time.monotonic()
            seconds = self._timed_run("first", self.world.training_settings(self.size.steps))
            self.run_seconds = time.monotonic() - began
        self.step_seconds, whole = statistics.median(seconds), statistics.fmean(seconds)
        flop = FLOP_COSTS.of(Workload(train_passes=8, forward_passes=8))
        lines = [
            f"- a step of four forget and four retain pairs: {1000 * self.step_seconds:.1f} ms (median of "
            f"{len(seconds)}; mean {1000 * whole:.1f} ms); {1 / self.step_seconds:.2f} steps/s",
            f"- the whole run of {self.size.steps} steps, with loading and saving: {self.run_seconds:.1f} s",
            *memory,
        ]
        return lines + self._share(flop / self.step_seconds, "bf16")

    def _timed_run(self, name: str, settings: UnlearningStage) -> list[float]:
        """Train a model; return the seconds of each step after the warm-up."""
        moments: list[float | torch.cuda.Event] = []
        with _each_step(lambda: moments.append(_now())):
            self.deltas[name] = self.world.train(name, settings)
            synchronize()
        assert len(moments) == self.size.steps, f"{len(moments)} optimiser steps were seen, expected {self.size.steps}"
        return [_seconds(before, after) for before, after in itertools.pairwise(moments[self.size.warm_up :])]

    def equal_runs(self) -> list[str]:
        """A second run of the same training has the same bits."""
        self.deltas["second"] = self.world.train("second", self.world.training_settings(self.size.steps))
        return [f"- {self._equality('first', 'second')}"]

    def interrupted_run(self) -> list[str]:
        """A run that is interrupted in its middle and resumed has the same bits."""
        settings = self.world.training_settings(self.size.steps)
        with _signal_after_step(self.size.steps // 2):
            try:
                self.world.train("third", settings)
            except Interrupted:
                pass
            else:
                raise AssertionError("the run was not interrupted")
        checkpoint = self.world.folder / "third/checkpoint.pt"
        assert checkpoint.exists(), "the interrupted run left no checkpoint"
        counted: list[int] = []
        with _each_step(lambda: counted.append(1)):
            self.deltas["third"] = self.world.train("third", settings)
        assert 0 < len(counted) < self.size.steps, f"{len(counted)} of {self.size.steps} steps after the interruption"
        equality = self._equality("first", "third")
        return [f"- interrupted, and resumed for the last {len(counted)} of {self.size.steps} steps: {equality}"]

    def sampling(self) -> list[str]:
        """Two times the same batch of the unlearned model: equal bits, time, memory, share of the peak."""
        size, delta = self.size, self.deltas["first"]
        once = self.world.sampling_settings(size.images, size.sampling_steps, size.images)
        twice = self.world.sampling_settings(2 * size.images, size.sampling_steps, size.images)
        began = time.monotonic()
        first = self.world.sample("sampled once", once, delta)
        synchronize()
        middle = time.monotonic()
        with _peak_memory() as memory:
            second = self.world.sample("sampled twice", twice, delta)
            synchronize()
        times = middle - began, time.monotonic() - middle
        names = [path.name for path in first.glob("*.jpg")]
        same = all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
        assert names and same, "the same batch of images was sampled twice, with different bits"
        batch_seconds = max(1e-9, times[1] - times[0])
        passes = 2 * size.sampling_steps * size.images
        flop = FLOP_COSTS.of(Workload(forward_passes=passes, decodes=size.images))
        lines = [
            f"- {len(names)} images sampled in two runs: equal bits",
            f"- a batch of {size.images} guided images of {size.sampling_steps} steps: {batch_seconds:.2f} s "
            f"({size.images / batch_seconds:.2f} images/s), as the difference between two batches and one",
            f"- loading and one batch: {times[0]:.1f} s",
            *memory,
        ]
        return lines + self._share(flop / batch_seconds, "fp16")

    def against_cpu(self) -> list[str]:
        """Training and sampling in fp32 with small networks, here and on the CPU."""
        folders = []
        for name, hidden in (("on this device", False), ("on the cpu", True)):
            folder = self.folder / name
            folder.mkdir()
            variables = {**os.environ} | ({"CUDA_VISIBLE_DEVICES": ""} if hidden else {})
            command = [sys.executable, __file__, "--worker", str(folder)]
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
            folders.append(folder)
        ours, theirs = (_weights(folder / "small" / DELTA_FILE) for folder in folders)
        base = _weights(folders[0] / "assets/pipeline/unet/diffusion_pytorch_model.safetensors")
        moved, apart = _distance(theirs, base), _distance(ours, theirs)
        images = [sorted((folder / "images of small/images").glob("*.jpg")) for folder in folders]
        levels = [[np.asarray(Image.open(path), dtype=np.float64) for path in each] for each in images]
        difference = max(float(np.abs(a - b).mean()) for a, b in zip(*levels, strict=True))
        assert moved > 0 and apart / moved <= MAX_DELTA_DIFFERENCE, (
            f"deltas differ by {apart / moved:.2g} of the change"
        )
        assert difference <= MAX_IMAGE_DIFFERENCE, f"images differ by {difference:.2f} grey levels"
        return [
            f"- the delta after {CPU_STEPS} steps: {apart / moved:.1e} of its change (limit {MAX_DELTA_DIFFERENCE:g})",
            f"- images: mean difference {difference:.3f} grey levels (limit {MAX_IMAGE_DIFFERENCE:g})",
        ]

    def counts(self) -> list[str]:
        """Synchronisations, copies, kernels and casts of a training step, from the profiler."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if IS_GPU else []
        few, more = 2, 4
        found = []
        for steps in (few, more):  # the difference is that of the steps alone
            with torch.profiler.profile(activities=activities) as profiler:
                self.world.train(f"profiled {steps}", self.world.training_settings(steps))
                synchronize()
            found.append(Counter({event.key: event.count for event in profiler.key_averages()}))
        each = {name: (found[1][name] - found[0][name]) / (more - few) for name in found[1]}

        def total(*parts: str) -> float:
            return sum(count for name, count in each.items() if any(part in name for part in parts))

        return [
            f"- synchronisations (cudaStreamSynchronize and others): {total('Synchronize'):.1f}",
            f"- copies between host and device: {total('Memcpy HtoD', 'Memcpy DtoH'):.1f}",
            f"- kernels: {total('cudaLaunchKernel', 'cuLaunchKernel'):.0f}",
            f"- casts (aten::_to_copy): {total('aten::_to_copy'):.0f}",
        ]

    def against_reference(self) -> list[str]:
        """Training and sampling beside the plain reference in the same precision, one pair each."""
        size = self.size
        lines = []
        steps, sampling_steps = (2, 1) if self.smoke else (40, 50)
        for comparison in comparisons(self.world, steps, size.images, sampling_steps):
            result = measure(comparison, 1)
            rates = [1 / result.seconds(side, "wall") for side in ("ours", "reference")]
            lines.append(
                f"- {comparison.name}: {rates[0]:.3g} {comparison.unit}s/s, the reference {rates[1]:.3g}: "
                f"{result.ratios('wall')[0]:.2f} times, with loading ({comparison.note})"
            )
        return lines

    def kernels(self) -> list[str]:
        """The time of a step with the switches of `training.kernels`, and how much they change the delta."""
        if self.smoke:  # compiling takes minutes on a CPU
            switches = [Kernels(compile=None, channels_last=True)]
        else:
            modes = (None, "default", "reduce-overhead")
            switches = [Kernels(compile=mode, channels_last=True) for mode in modes]
        plain = _weights(self.world.folder / "first" / DELTA_FILE)
        base = _weights(self.world.folder / "assets/pipeline/unet/diffusion_pytorch_model.safetensors")
        moved = _distance(plain, base)
        lines = [f"- off: {1000 * self.step_seconds:.1f} ms"]
        for kernels in switches:
            name = f"compile {kernels.compile}, channels_last {kernels.channels_last}"
            began = time.monotonic()
            settings = self.world.training_settings(self.size.steps, kernels=kernels)
            step_seconds = statistics.median(self._timed_run(name, settings))
            whole = time.monotonic() - began
            apart = _distance(_weights(self.world.folder / name / DELTA_FILE), plain) / moved
            lines += [
                f"- {name}: {1000 * step_seconds:.1f} ms, {self.step_seconds / step_seconds:.2f} times as fast; "
                f"the run took {whole:.0f} s, with compilation; the delta differs by {apart:.1e} of its change"
            ]
        return lines

    def _equality(self, first: str, second: str) -> str:
        hashes = [self.deltas[name].files[DELTA_FILE] for name in (first, second)]
        assert hashes[0] == hashes[1], f"the deltas have different bits: {hashes[0][:12]} and {hashes[1][:12]}"
        return f"equal bits ({hashes[0][:12]})"

    def _share(self, rate: float, dtype: str) -> list[str]:
        if self.smoke:
            return []
        share = rate / self.peaks[dtype] if dtype in self.peaks else math.nan
        return [f"- {rate / 1e12:.0f} TFLOP/s, {share:.0%} of the measured {dtype} peak"]


PARTS = (
    ("Peak of matrix multiplication", Checks.peak, 20),
    ("Inputs", Checks.build, 60),
    ("Training", Checks.training, 60),
    ("Two runs", Checks.equal_runs, 45),
    ("An interrupted run", Checks.interrupted_run, 60),
    ("Sampling", Checks.sampling, 75),
    ("Small networks in fp32, here and on a CPU", Checks.against_cpu, 75),
    ("Counts of a training step", Checks.counts, 45),
    ("Beside the plain reference", Checks.against_reference, 120),
    ("Other kernels", Checks.kernels, 150),
)
"""The parts: title, method, and the seconds that must be left when it begins."""


# Measuring a run from outside


@contextmanager
def _each_step(act: Callable[[], object]) -> Iterator[None]:
    """Call `act` after each step of any optimiser in the block."""
    handle = register_optimizer_step_post_hook(lambda *_: act())
    try:
        yield
    finally:
        handle.remove()


def _now() -> float | torch.cuda.Event:
    """This moment, on a GPU in the stream of its work."""
    if not IS_GPU:
        return time.monotonic()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(before: float | torch.cuda.Event, after: float | torch.cuda.Event) -> float:
    if isinstance(before, float) or isinstance(after, float):
        assert isinstance(before, float) and isinstance(after, float)
        return after - before
    return before.elapsed_time(after) / 1000


@contextmanager
def _peak_memory() -> Iterator[list[str]]:
    """Yield a list that has a line about the peak memory of the block after it."""
    lines: list[str] = []
    if IS_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield lines
    if IS_GPU:
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        total = torch.cuda.get_device_properties(0).total_memory
        lines.append(
            f"- peak memory: {allocated / 1e9:.1f} GB in tensors, {reserved / 1e9:.1f} GB reserved, of "
            f"{total / 1e9:.0f} GB"
        )


@contextmanager
def _signal_after_step(step: int) -> Iterator[None]:
    """Send SIGTERM to this process after that step of an optimiser, as a scheduler does before it ends a job."""
    seen: list[int] = []

    def count() -> None:
        seen.append(1)
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with _each_step(count):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in read_safetensors(path).items()}


def _distance(tensors: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The norm of the difference of the first tensors from those with the same names."""
    return math.sqrt(sum(float((tensor - others[name]).square().sum()) for name, tensor in tensors.items()))


def work_on_small_networks(folder: Path) -> None:
    """Train and sample in fp32 with small networks in this process, on the device that it sees."""
    world = FullWorld(folder, REDUCED, 64, "cpu", threads=1)  # built on the CPU, so that all have the same weights
    precision = TrainingPrecision(gpu="fp32", cpu="fp32")
    delta = world.train("small", world.training_settings(CPU_STEPS, precision=precision))
    settings = world.sampling_settings(2, CPU_STEPS, 2, precision=precision)
    world.sample("images of small", settings, delta)


# The report


def run_parts(checks: Checks, minutes: float, report: Path) -> list[str]:
    """Run the parts, and write the report after each of them; return the titles of those that failed or were left out.

    If the script is killed, the report has the parts before.
    """
    deadline = time.monotonic() + 60 * minutes
    lines, missing = _heading(checks.smoke), list[str]()
    for title, part, needed in PARTS:
        left = deadline - time.monotonic()
        print(f"{title} ({left:.0f} s left)", file=sys.stderr, flush=True)
        lines += ["", f"## {title}", "", (part.__doc__ or "").splitlines()[0], ""]
        if left < needed and not checks.smoke:
            lines.append(f"- **not run**: {left:.0f} s were left, and it may need {needed}")
            missing.append(title)
            continue
        began = time.monotonic()
        try:
            lines += part(checks)
        except Exception as error:
            traceback.print_exc()
            lines.append(f"- **failed**: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
            missing.append(title)
        lines.append(f"- took {time.monotonic() - began:.0f} s")
        report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return missing


def main() -> int:
    """Run all parts and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all parts (default: %(default)g)")
    parser.add_argument("--report", type=Path, default=Path("benchmark/gpu.md"), help="the page to write")
    parser.add_argument("--folder", type=Path, help="folder for 10 GB of files (default: the system's temporary one)")
    parser.add_argument("--smoke", action="store_true", help="small networks; also without a GPU")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    if options.worker:
        work_on_small_networks(options.worker)
        return 0
    if not IS_GPU and not options.smoke:
        raise SystemExit("There is no GPU that torch can use here; --smoke runs every part with small networks.")
    options.report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        missing = run_parts(Checks(Path(folder), options.smoke), options.minutes, options.report)
    print(options.report.read_text(encoding="utf-8"))
    if missing:
        print(f"failed or left out: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing else 0


def _heading(smoke: bool) -> list[str]:
    device = platform.processor() or platform.machine()
    if IS_GPU:
        properties = torch.cuda.get_device_properties(0)
        device = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    size = "small networks, whose numbers mean nothing" if smoke else "Stable Diffusion v1.5 with random weights"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "accelerate"))
    return [f"# Checks on {device}", "", f"{size}; Python {platform.python_version()}, {versions}."]


if __name__ == "__main__":
    sys.exit(main())
