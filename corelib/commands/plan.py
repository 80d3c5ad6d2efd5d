"""`python -m corelib plan`: the cost of targets, before anything is run."""

from __future__ import annotations

import argparse

from corelib.commands.arguments import CONFIGURATION, add_targets
from corelib.costs.device_time import CORE_SECONDS, GPUS, core_seconds
from corelib.costs.forecast import Forecast, Item, forecast_of
from corelib.costs.gpu_memory import largest_gpu_memory
from corelib.costs.workload import FLOP_COSTS, Workload
from corelib.files.text import counted, format_bytes
from corelib.runs.run import Run
from corelib.runs.stage_registry import STAGES

HELP = "print the cost of targets: jobs, steps, images, hours, disk space; nothing is run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `targets`."""
    add_targets(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the forecast."""
    print(as_text(*forecast_of(arguments.targets, CONFIGURATION)))
    return 0


def as_text(found: Forecast, kind: str) -> str:
    """The forecast as text: a table of the stages, and the total time.

    Args:
        found: the forecast.
        kind: the world of the targets; minutes of a core for `miniature`, hours of a GPU otherwise.
    """
    if not found.items:
        return found.nothing_to_do_message
    summary = (
        f"{counted(len(found.runs), 'run')}, of which {found.shared} serve more than one row; "
        f"{len(found.runs) - len(found.items)} are built, {len(found.items)} are left: "
        f"{counted(found.jobs.total(), 'job')}."
    )
    costs = [*_on_gpus(found), *_memory(found)] if kind != "miniature" else _on_cores(found)
    if kind == "image_folder":
        costs.append("work, memory and disk are those of Stable Diffusion v1.5's networks, whatever the base model is")
    return "\n".join([", ".join(found.asked), summary, "", *_stages(found), "", *costs])


def _stages(found: Forecast) -> list[str]:
    header = f"{'stage':<12}{'runs':>6}{'left':>6}{'jobs':>6}{'steps':>10}{'images':>9}{'disk':>10}"
    lines = [header, "-" * len(header)]
    for stage in STAGES:
        runs = sum(run.stage == stage for run in found.runs.values())
        items = [item for item in found.items.values() if item.run.stage == stage]
        if runs:
            lines.append(_line(stage, runs, items))
    return [*lines, "-" * len(header), _line("all", len(found.runs), list(found.items.values()))]


def _line(stage: str, runs: int, items: list[Item]) -> str:
    work = sum((item.work for item in items), Workload())
    jobs = sum(sum(item.jobs.values()) for item in items)
    steps, images = (f"{count:,}" if count else "" for count in (work.steps, work.images))
    disk = format_bytes(work.disk) if work.disk else ""
    return f"{stage:<12}{runs:>6}{len(items):>6}{jobs:>6}{steps:>10}{images:>9}{disk:>10}"


def _on_gpus(found: Forecast) -> list[str]:
    flop = FLOP_COSTS.of(found.work)
    longest, chain = found.longest_chain(FLOP_COSTS)
    lines = [f"{flop / 1e18:.3g} EFLOP", "", f"{'GPU-hours':<10}{'floor':>8}{'expected':>10}{'longest chain':>15}"]
    for gpu in GPUS:
        floor, expected = (flop / speed / 3600 for speed in (gpu.peak, gpu.peak * gpu.share))
        row = longest / (gpu.peak * gpu.share) / 3600
        lines.append(f"{gpu.name:<10}{floor:>8.1f}{expected:>10.1f}{row:>15.1f}")
    peaks = ", ".join(f"{gpu.name} {gpu.peak / 1e12:.0f}" for gpu in GPUS)
    return [
        *lines,
        "",
        f"floor: at the bf16 peak of the data sheet, in TFLOP/s: {peaks}. expected:",
        *(f"  {gpu.name} at {gpu.share:.1%} of it, {gpu.source}" for gpu in GPUS),
        f"longest chain: {_chain(chain)}",
    ]


def _memory(found: Forecast) -> list[str]:
    """The GPU memory of the stages that need the most; of all runs, since those that are built may be lost."""
    lines = []
    for stage in ("unlearning", "samples"):
        needed = largest_gpu_memory(run for run in found.runs.values() if run.stage == stage)
        if needed:
            lines.append(f"GPU memory of {stage}: {format_bytes(needed)}, counted, without that of CUDA itself")
    return lines


def _on_cores(found: Forecast) -> list[str]:
    minutes = core_seconds(found.work, found.jobs.total()) / 60
    longest, chain = found.longest_chain(CORE_SECONDS)
    lines = [f"about {counted(round(minutes), 'minute')} of one CPU core, as measured on an AMD EPYC server"]
    if steps := found.work.world_steps:
        lines.append(f"and {steps:,} training steps of the miniature's own networks, which this time does not include")
    return [*lines, f"longest chain, {longest / 60:.0f} minutes: {_chain(chain)}"]


def _chain(runs: list[Run]) -> str:
    return " -> ".join(f"{run.stage} {run.slug}" for run in runs)
