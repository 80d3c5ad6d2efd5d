"""The report of the benchmark: CSV, Markdown and a picture."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.measurement import Result

COLUMNS = (
    "work",
    "unit",
    "pairs",
    "ours_cpu_s",
    "reference_cpu_s",
    "ours_wall_s",
    "reference_wall_s",
    "ratio_cpu",
    "ratio_cpu_min",
    "ratio_cpu_max",
    "ratio_wall",
    "ours_share_of_peak",
    "reference_share_of_peak",
)


@dataclass(frozen=True)
class Report:
    """Everything that a run of the benchmark has found.

    Attributes:
        title: the size of the models, and the device.
        clock: the clock by which rates and ratios are judged: "cpu", or "wall" on a GPU.
        results: the comparisons.
        peak: the device's measured rate of matrix multiplications, in FLOP per second.
        peaks: peak memory in MiB by stage, ours and the reference's.
        remarks: sentences about the circumstances.
    """

    title: str
    clock: str
    results: Sequence[Result]
    peak: float
    peaks: Mapping[str, tuple[float, float]]
    remarks: Sequence[str]

    def write(self, folder: Path) -> list[Path]:
        """Write `benchmark.csv`, `.md` and `.png`; return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"benchmark.{ending}" for ending in ("csv", "md", "png")]
        with paths[0].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows())
        paths[1].write_text(self.markdown(), encoding="utf-8")
        self._draw(paths[2])
        return paths

    def rows(self) -> list[dict[str, object]]:
        """A row for each comparison; times are medians, for one unit of the work."""
        rows = []
        for result in self.results:
            ratios = sorted(result.ratios("cpu"))
            rows.append(
                {
                    "work": result.comparison.name,
                    "unit": result.comparison.unit,
                    "pairs": len(ratios),
                    **{
                        f"{side}_{clock}_s": f"{result.seconds(side, clock):.6g}"
                        for clock in ("cpu", "wall")
                        for side in ("ours", "reference")
                    },
                    "ratio_cpu": f"{_median(ratios):.3f}",
                    "ratio_cpu_min": f"{ratios[0]:.3f}",
                    "ratio_cpu_max": f"{ratios[-1]:.3f}",
                    "ratio_wall": f"{_median(result.ratios('wall')):.3f}",
                    **{
                        f"{side}_share_of_peak": f"{share:.3f}"
                        for side in result.flop
                        if (share := self._share(result, side))
                    },
                }
            )
        return rows

    def _share(self, result: Result, side: str) -> float:
        return result.flop[side] / result.seconds(side, self.clock) / self.peak

    def markdown(self) -> str:
        """The report as text."""
        clock = "CPU time" if self.clock == "cpu" else "wall time"
        lines = [
            f"# {self.title}",
            "",
            f"{platform.processor() or platform.machine()}; Python {platform.python_version()}, torch "
            f"{version('torch')}, diffusers {version('diffusers')}. Rates and times are medians in {clock}; a ratio is "
            "the median of the pairs' ratios, with the smallest and the largest.",
            "",
            f"| work | ours | reference | ratio, {clock} | ratio, wall time | pairs |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for result in self.results:
            ratios = sorted(result.ratios(self.clock))
            spread = f"{_median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            wall = f"{_median(result.ratios('wall')):.2f}"
            cells = [self._speed(result, side) for side in ("ours", "reference")]
            lines.append(f"| {result.comparison.name} | {' | '.join(cells)} | {spread} | {wall} | {len(ratios)} |")
        lines += ["", "| share of the device's peak | ours | reference |", "| --- | ---: | ---: |"]
        for result in self.results:
            if result.flop:
                shares = " | ".join(f"{self._share(result, side):.0%}" for side in ("ours", "reference"))
                lines.append(f"| {result.comparison.name} | {shares} |")
        lines += [
            "",
            f"The peak is the measured rate of matrix multiplications in the same precision: {self.peak / 1e9:,.1f} "
            "GFLOP/s. The share counts the operations that each side executes, so that superfluous ones count as well.",
            "",
            "| peak memory in MiB | ours | reference |",
            "| --- | ---: | ---: |",
            *(f"| {stage} | {ours:,.0f} | {theirs:,.0f} |" for stage, (ours, theirs) in self.peaks.items()),
            "",
        ]
        lines += [f"- {result.comparison.name}: {result.comparison.note}." for result in self.results]
        return "\n".join([*lines, *(f"- {remark}" for remark in self.remarks)]) + "\n"

    def _speed(self, result: Result, side: str) -> str:
        seconds, unit = result.seconds(side, self.clock), result.comparison.unit
        return f"{1 / seconds:.3g} {unit}s/s" if result.comparison.is_rate else f"{seconds:.3g} s"

    def _draw(self, path: Path) -> None:
        """A bar for each comparison: how many times as fast ours is, with the range of the pairs."""
        names = [result.comparison.name for result in self.results][::-1]
        ratios = [sorted(result.ratios(self.clock)) for result in self.results][::-1]
        middle = [_median(each) for each in ratios]
        spread = [
            [value - each[0] for value, each in zip(middle, ratios, strict=True)],
            [each[-1] - value for value, each in zip(middle, ratios, strict=True)],
        ]
        figure, axes = plt.subplots(figsize=(7, 0.5 * len(names) + 1.2), layout="constrained")
        axes.barh(names, [value - 1 for value in middle], left=1, xerr=spread, color="#4477aa", error_kw={"capsize": 3})
        axes.axvline(1, color="black", linewidth=0.8)
        for place, (value, each) in enumerate(zip(middle, ratios, strict=True)):
            axes.annotate(f"   {value:.2f}", (max(1, each[-1]), place), va="center", fontsize=9)
        ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if tick <= 2 * max(middle)]
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlim(min(0.8, 0.9 * min(middle)), 2 * max(middle))
        axes.set_xlabel(f"reference / ours, {'CPU' if self.clock == 'cpu' else 'wall'} time (log scale)")
        axes.set_title(self.title, fontsize=10)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _median(ordered: Sequence[float]) -> float:
    ordered = sorted(ordered)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
