"""Charts: every number is drawn, equal inputs give equal files, and colours are told apart without colour vision."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support import records
from support.evaluated import CORE, ESD, cells, row

from corelib.files.hashing import sha256_of_path
from corelib.reports.accuracy_charts import styles_chart, tradeoff_chart, values_chart
from corelib.reports.chart_style import COLOURS, FORMATS, MARKS, chart_style, marks_of
from corelib.reports.charts import draw_charts
from corelib.reports.confusion_charts import confusion_chart
from corelib.reports.loss_charts import loss_chart
from corelib.reports.paper_comparison import read_published
from corelib.reports.table_lines import TableLine, table_line
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.reports import ChartsStage
from corelib.unlearning.training_file import TRAINING_COLUMNS, TRAINING_FILE

PUBLISHED = [["Forget01", "esd", "UA", "100.00", "30", "30"], ["Forget01", "esd", "SFID", "96.95", "", ""]]
ROWS = [row("original", "Original", seeds=(None,)), row("esd", "ESD"), row("core", "CORE\n(ours)", seeds=(0, 1))]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Manifest]:
    numbers = {"original": CORE, "esd": ESD, "core": CORE}
    found = {}
    for one in ROWS:
        for seed in one.seeds:
            found[seed.cells] = cells(tmp_path / f"{one.row}-{seed.seed}", numbers[one.row])
            if seed.seed is not None:
                found[f"{seed.cells}/training"] = training(tmp_path / f"training-{one.row}-{seed.seed}", 40)
    return found


@pytest.fixture
def lines(inputs: dict[str, Manifest]) -> list[TableLine]:
    return [table_line(one, inputs) for one in ROWS]


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with chart_style():
        yield


def training(folder: Path, steps: int) -> Manifest:
    """The manifest of a training run whose terms are straight lines."""
    folder.mkdir()
    columns = {name: np.arange(steps, dtype=np.float32) * factor for factor, name in enumerate(TRAINING_COLUMNS)}
    pq.write_table(pa.table({"step": range(steps), **columns}), folder / TRAINING_FILE)
    return records.manifest(folder, {TRAINING_FILE: sha256_of_path(folder / TRAINING_FILE)}, stage="unlearning")


def texts(chart: Figure) -> set[str]:
    """All texts of a chart after it is laid out."""
    chart.draw_without_rendering()
    return {text.get_text() for text in chart.findobj(mpl.text.Text)}


def stage(inputs: dict[str, Manifest]) -> ChartsStage:
    trainings = {role.removesuffix("/training"): role for role in inputs if role.endswith("/training")}
    return ChartsStage(name="charts1", rows=ROWS, published=PUBLISHED, trainings=trainings)


def test_each_chart_is_a_pdf_and_a_png_and_equal_charts_are_equal_files(inputs, tmp_path, monkeypatch):
    folders = [tmp_path / "once", tmp_path / "again"]
    for folder in folders:
        folder.mkdir()
        outcome = draw_charts(stage(inputs), StageContext(folder, "0" * 64, inputs))
        mpl.rcParams.update({"font.size": 30, "axes.facecolor": "red"})  # as a user's matplotlibrc may
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    charts = ("tradeoff", "values", "styles", "confusion", "losses")
    assert outcome.files == sorted(f"charts1.{chart}.{kind}" for chart in charts for kind in FORMATS)
    for name in outcome.files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
        if name.endswith("png"):
            with Image.open(folders[0] / name) as image:
                assert image.width >= 1400
        else:
            assert (folders[0] / name).read_bytes().startswith(b"%PDF")


def test_the_tradeoff_has_a_mark_at_the_accuracies_of_each_row_and_its_intervals(lines):
    (axis,) = tradeoff_chart(lines).axes
    points = {container.get_label(): container for container in axis.containers}
    assert list(points) == ["Original", "ESD", "CORE (ours)"]
    for line in lines:
        label = " ".join(line.row.title.split())
        marker, _, bars = points[label].lines
        assert marker.get_xydata().tolist() == [[float(line.means["IRA"]), float(line.means["UA"])]]
        (low, high) = bars[0].get_segments()[0][:, 0]
        assert (low, high) == pytest.approx(line.interval("IRA"))


def test_the_values_have_a_panel_for_each_metric_with_the_papers_value_beside_ours(lines):
    chart = values_chart(lines, read_published(PUBLISHED))
    assert len(chart.axes) == 5
    ua = chart.axes[0]
    papers = [artist for artist in ua.lines if artist.get_label() == "paper"]
    assert [artist.get_xydata().tolist() for artist in papers] == [[[100.0, 1.0]]], "the second row from above"
    assert {"this study", "paper", "Forget01, UA", "SFID", "Total"} <= texts(chart)


def test_styles_show_the_share_of_each_style_with_forget_styles_first(lines):
    chart = styles_chart(lines)
    (image,) = chart.axes[0].images
    shares = [[100 * 2 / 30, 98.0], [100 * 1 / 30, 100 * 140 / 150], [100 * 2 / 30, 98.0]]
    np.testing.assert_allclose(image.get_array(), shares, atol=0.01)
    assert {"Amber", "Blue", "7", "98", "CORE (ours)"} <= texts(chart)


def test_confusion_is_a_matrix_of_shares_of_each_prompted_style(lines):
    chart = confusion_chart(lines)
    image = chart.axes[1].images[0]
    np.testing.assert_allclose(image.get_array(), [[1 / 30, 29 / 30], [10 / 150, 140 / 150]])
    assert "Forget01, ESD" in texts(chart)


def test_losses_are_drawn_for_each_trained_row_and_each_seed(lines, inputs):
    trainings = {role.removesuffix("/training"): found for role, found in inputs.items() if role.endswith("/training")}
    chart = loss_chart(lines, trainings)
    esd, core, empty = chart.axes
    assert (len(esd.lines), len(core.lines)) == (2, 4), "two terms for each seed"
    assert not empty.axison, "the original model is not trained"
    unlearn, retain = esd.lines
    assert unlearn.get_ydata().tolist() == pytest.approx(np.arange(40))
    assert retain.get_ydata().tolist() == pytest.approx(2 * np.arange(40))


def test_a_row_without_its_training_run_is_no_panel(lines):
    assert not any(axis.axison for axis in loss_chart(lines, {}).axes)


def test_many_rows_differ_in_colour_or_mark():
    names = [str(number) for number in range(len(COLOURS) * len(MARKS))]
    assert len(set(marks_of(names).values())) == len(names)


# Matrices of Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", table 1, severity 1; they act on linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_the_first_five_colours_are_told_apart_with_a_colour_vision_deficiency(kind):
    seen = [in_lab(np.clip(np.array(DEFICIENCIES[kind]) @ linear(colour), 0, 1)) for colour in COLOURS[:5]]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 10  # 2.3 is just noticeable


def linear(colour: str) -> np.ndarray:
    """A colour in linear RGB."""
    values = np.array(mpl.colors.to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def in_lab(rgb: np.ndarray) -> np.ndarray:
    """A colour in linear RGB as CIELAB (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ rgb / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
