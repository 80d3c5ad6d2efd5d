"""`python -m corelib plan`: the cost of targets, before anything is run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from corelib.cluster.site import SITE_FILE, Site, check_site_file
from corelib.commands.arguments import CONFIGURATION, add_targets
from corelib.costs.device_time import CORE_SECONDS, GPUS, core_seconds
from corelib.costs.forecast import Forecast, Item, forecast_of
from corelib.costs.gpu_memory import largest_gpu_memory
from corelib.costs.schedule import jobs_of, simulate
from corelib.costs.workload import FLOP_COSTS, Costs, Workload
from corelib.errors import ConfigurationError
from corelib.files.text import counted, format_bytes
from corelib.files.yaml_files import read_yaml
from corelib.runs.run import Run
from corelib.runs.stage_registry import STAGES

HELP = "print the cost of targets: jobs, steps, images, hours, disk space; nothing is run"


START_SECONDS = 60.0
"""Default of `--start`: an assumption, not a measurement."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `targets`, the numbers of GPUs for which wall times are printed, and the time that a job takes to start."""
    add_targets(parser)
    parser.add_argument(
        "--gpus",
        type=_counts,
        default=[],
        metavar="N[,N...]",
        help="print the wall time on N GPUs, by simulating the jobs, and the longest chain of jobs; such as 1,8,64",
    )
    parser.add_argument(
        "--start",
        type=_seconds,
        default=START_SECONDS,
        metavar="SECONDS",
        help="with --gpus: the start-up time of a job: queue, imports, loading of weights (default: %(default)g)",
    )


def _counts(text: str) -> list[int]:
    counts = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= count <= MAX_GPUS for count in counts):
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers from 1 to {MAX_GPUS}, such as 64 or 1,8,64")
    return counts


MAX_GPUS = 100_000
"""Maximum number of GPUs of a simulation."""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}, expected a number of seconds")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Print the forecast. Raises `ConfigurationError` for `--gpus` with targets of the miniature."""
    found, kind = forecast_of(arguments.targets, CONFIGURATION)
    if arguments.gpus and kind == "miniature":
        raise ConfigurationError(
            f"--gpus {','.join(map(str, arguments.gpus))}: the costs of the miniature are known for CPU cores only; "
            "leave the option out, or ask for targets of the paper's world or of an image folder."
        )
    print(as_text(found, kind))
    if arguments.gpus and found.items:
        print("\n" + wall_times(found, arguments.gpus, arguments.start, _rates(CONFIGURATION.parent)))
    return 0


def _rates(repository: Path) -> dict[str, Costs]:
    """The seconds that a GPU takes for each unit of work, by their source: data sheets, and the site's file if any."""
    rates = {
        f"{gpu.name} at {gpu.share:.1%}": Costs(
            **{unit: flop / (gpu.peak * gpu.share) for unit, flop in vars(FLOP_COSTS).items()}
        )
        for gpu in GPUS
    }
    check_site_file(repository)
    site_file = repository / SITE_FILE
    if site_file.exists() and (seconds := Site.of(read_yaml(site_file) or {}).seconds):
        rates[SITE_FILE] = seconds.costs
    return rates


def wall_times(found: Forecast, counts: list[int], start: float, rates: Mapping[str, Costs]) -> str:
    """The simulated wall time on each number of GPUs, in hours, and the longest chain of jobs, as text.

    Args:
        found: a forecast with at least one item.
        counts: the numbers of GPUs.
        start: seconds that each job takes besides its work.
        rates: seconds of a GPU for each unit of work, by their source; the chain is printed for the first.
    """
    columns = [counted(count, "GPU") for count in counts]
    lines = [f"{'wall time in hours':<20}" + "".join(f"{column:>14}" for column in columns) + f"{'longest chain':>16}"]
    chain: list[str] = []
    for source, costs in rates.items():
        jobs = jobs_of(found, costs, start)
        schedules = [simulate(jobs, count) for count in counts]
        cells = "".join(f"{one.seconds / 3600:>8.2f} ({one.busy:>3.0%})" for one in schedules)
        lines.append(f"{source:<20}{cells}{schedules[0].chain_seconds / 3600:>16.2f}")
        chain = chain or [f"{name} ({jobs[name].seconds / 60:.0f} min)" for name in schedules[0].chain]  # of the first
    return "\n".join(
        [
            *lines,
            "",
            "simulated, not measured; of the jobs that are ready, the one with the longest chain starts first",
            "in parentheses: the share of the time for which the GPUs compute",
            f"All rates are assumptions, unless you have measured those of {SITE_FILE} (seconds).",
            f"A job takes {start:g} s more, also assumed (--start); jobs beside Snakemake take no time.",
            f"longest chain, {next(iter(rates))}: {' -> '.join(chain)}",
        ]
    )


OTHER_BASE_MODELS = (
    "Work, GPU-hours, memory and disk are those of Stable Diffusion v1.5's networks, whatever the base model is; a "
    "smaller one needs less."
)
"""The warning before the costs of a base model of the user's, whose size is not known before it is loaded."""


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
    warning = [OTHER_BASE_MODELS] if kind == "image_folder" else []
    return "\n".join([*warning, ", ".join(found.asked), summary, "", *_stages(found), "", *costs])


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
        f"floor: at the bf16 peak of the data sheet, in TFLOP/s: {peaks}",
        *(f"expected, {gpu.name}: at {gpu.share:.1%} of the peak, {gpu.source}" for gpu in GPUS),
        f"longest chain: {_chain(chain)}",
    ]


def _memory(found: Forecast) -> list[str]:
    """The GPU memory of the stages that need the most; of all runs, since those that are built may be lost."""
    lines = []
    for stage in ("unlearning", "samples"):
        needed = largest_gpu_memory(run for run in found.runs.values() if run.stage == stage)
        if needed:
            lines.append(f"GPU memory of {stage}: {format_bytes(needed)}, the sum of the tensors, without CUDA itself")
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
