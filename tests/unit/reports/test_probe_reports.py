"""The report on a probe: its counts, intervals over seeds, warnings, and its chart."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from support import records

from corelib.errors import ArtefactError
from corelib.evaluation.metrics import Count
from corelib.evaluation.predictions import PREDICTIONS, write_predictions
from corelib.evaluation.seed_statistics import accuracy_interval
from corelib.files.hashing import sha256_of_path
from corelib.files.sealed_json import write_record
from corelib.reports.chart_style import chart_style
from corelib.reports.probe_charts import probe_chart
from corelib.reports.probe_counts import probe_lines
from corelib.reports.probe_report import provenance_csv, report_probe, to_csv
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.probe_report import Condition, ProbedModel, ProbedRow, ProbeStage

STYLES, OBJECTS, SEEDS = ["Amber", "Blue"], ["Cats"], list(range(10))


def predictions(folder: Path, amber: int, blue: int, flagged: int = 0, diverged_at: int | None = None) -> Manifest:
    """Predictions of ten images of each style, of which some are recognised as it."""
    table = pd.DataFrame(
        {
            "style": ["Amber"] * 10 + ["Blue"] * 10 + ["Cream"] * 10,
            "object": ["Cats"] * 30,
            "seed": SEEDS * 3,
            "predicted_style": ["Amber"] * amber + ["Cream"] * (10 - amber) + ["Blue"] * blue + ["Cream"] * (20 - blue),
            "predicted_object": ["Cats"] * 30,
            "flagged": [at < flagged for at in range(30)],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(table, folder / PREDICTIONS)
    files = {PREDICTIONS: sha256_of_path(folder / PREDICTIONS)}
    return records.manifest(folder, files, stage="predictions", facts={"diverged_at": diverged_at})


def search(folder: Path, diverged_at: int | None) -> Manifest:
    """A run that has searched for a style."""
    return records.manifest(folder, stage="relearning", facts={"diverged_at": diverged_at})


def settings(kind: str = "relearning", seeds: tuple[int, ...] = (0, 1)) -> ProbeStage:
    conditions = [
        Condition(name="usual", group="", amount=0.0),
        Condition(name="after", group="1 image", amount=5.0),
    ]

    def row(name: str, of: tuple[int | None, ...]) -> ProbedRow:
        models = [
            ProbedModel(
                seed=seed,
                predictions={c.name: f"{name}/{seed}/{c.name}" for c in conditions},
                searches={"after": f"{name}/{seed}/after/search"},
            )
            for seed in of
        ]
        return ProbedRow(task="Forget01", row=name, title=f"{name} |\nx", models=models)

    return ProbeStage(
        name="probe_x",
        kind=kind,
        rows=[row("original", (None,)), row("core", seeds)],
        conditions=conditions,
        styles={"Forget01": {"usual": STYLES, "after": STYLES}},
        objects={"Forget01": OBJECTS},
        seeds={"Forget01": SEEDS},
        note="A note.",
    )


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Manifest]:
    return {
        "original/None/usual": predictions(tmp_path / "a", 10, 10),
        "original/None/after": predictions(tmp_path / "b", 10, 9),
        "core/0/usual": predictions(tmp_path / "c", 0, 1),
        "core/0/after": predictions(tmp_path / "d", 6, 4, flagged=2),
        "core/1/usual": predictions(tmp_path / "e", 0, 0),
        "core/1/after": predictions(tmp_path / "f", 8, 4),
        "original/None/after/search": search(tmp_path / "g", None),
        "core/0/after/search": search(tmp_path / "h", None),
        "core/1/after/search": search(tmp_path / "i", 7),
    }


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_count_is_that_of_the_images_recognised_as_the_style_of_their_prompt(inputs: dict[str, Manifest]) -> None:
    found = lines_of(to_csv(list(probe_lines(settings(), inputs))))
    one = {
        (line["row"], line["condition"], line["seed"], line["style"]): (line["k"], line["n"], line["value"])
        for line in found
    }
    assert one["original", "usual", "", "all"] == ("20", "20", "100.00")
    assert one["core", "after", "0", "Amber"] == ("6", "10", "60.00")
    assert one["core", "after", "1", "Blue"] == ("4", "10", "40.00")
    assert one["core", "after", "all", "Amber"] == ("14", "20", "70.00")
    assert one["core", "after", "all", "all"] == ("22", "40", "55.00")
    assert len(found) == len(one) == 2 * 3 + 2 * 9


def test_intervals_are_wilsons_for_one_model_and_students_t_over_seeds(inputs: dict[str, Manifest]) -> None:
    found = {
        (line["row"], line["condition"], line["seed"], line["style"]): line
        for line in lines_of(to_csv(list(probe_lines(settings(), inputs))))
    }
    low, high = Count(10, 20).interval()
    one = found["core", "after", "0", "all"]
    assert (one["interval"], one["low"], one["high"]) == ("Wilson", f"{low:.2f}", f"{high:.2f}")
    low, high = accuracy_interval([Count(10, 20), Count(12, 20)])
    both = found["core", "after", "all", "all"]
    assert (both["interval"], both["low"], both["high"]) == ("t over 2 seeds", f"{low:.2f}", f"{high:.2f}")


def test_warnings_and_runs_are_beside_the_counts(inputs: dict[str, Manifest]) -> None:
    found = {
        (line["condition"], line["seed"]): line
        for line in lines_of(to_csv(list(probe_lines(settings(), inputs))))
        if line["row"] == "core" and line["style"] == "all"
    }
    steps = [found["after", seed]["search_diverged_at"] for seed in ("0", "1", "all")]
    assert (found["after", "0"]["flagged"], steps) == ("2", ["", "7", "7"])
    assert {line["diverged_at"] for line in found.values()} == {""}
    assert found["after", "all"]["run"] == "d f"


def test_a_missing_image_stops_the_report(inputs: dict[str, Manifest]) -> None:
    wanted = settings().model_copy(update={"seeds": {"Forget01": [*SEEDS, 99]}})
    with pytest.raises(ArtefactError, match="lack the image"):
        list(probe_lines(wanted, inputs))


def test_a_condition_that_counts_no_style_of_a_task_has_no_line(inputs: dict[str, Manifest]) -> None:
    wanted = settings().model_copy(update={"styles": {"Forget01": {"usual": ["Blue"], "after": []}}})
    assert [line.condition.name for line in probe_lines(wanted, inputs)] == ["usual", "usual"]


@pytest.mark.parametrize("kind", ["wording", "partial_diffusion", "relearning", "inversion", "prefix", "neighbours"])
def test_every_kind_of_probe_has_a_page_and_a_chart_of_equal_bytes(
    kind: str, inputs: dict[str, Manifest], tmp_path: Path
) -> None:
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        result = report_probe(settings(kind), StageContext(folder, "digest", inputs))
        assert result.files == ["probe_x.csv", "probe_x.md", "probe_x.pdf", "probe_x.png"]
        assert result.records == ["probe_x.provenance.csv"]
        written.append({name: (folder / name).read_bytes() for name in result.files})
    assert written[0] == written[1]
    page = written[0]["probe_x.md"].decode()
    assert "| core \\| x | 1 of 40: 2.5 (" in page and "A note." in page
    assert "| 22 of 40: 55.0 (" in page and ")[^1] |" in page
    assert page.endswith("\n\n[^1]: seed 0: 2 images constant or not finite; seed 1: the search diverged at step 7.\n")


def test_a_search_does_not_diverge_anew_if_the_training_of_its_model_did(tmp_path: Path) -> None:
    """A fine-tuned model states the divergence of the model before; both have the same note."""
    found = {
        "core/0/usual": predictions(tmp_path / "a", 0, 1, diverged_at=3),
        "core/0/after": predictions(tmp_path / "b", 6, 4, diverged_at=3),
        "core/0/after/search": search(tmp_path / "c", 3),
    }
    wanted = settings(seeds=(0,))
    lines = list(probe_lines(wanted.model_copy(update={"rows": wanted.rows[1:]}), found))
    assert [line.remark for line in lines] == ["the training of the model diverged at step 3"] * 2


def test_every_count_names_the_jobs_behind_it(tmp_path: Path) -> None:
    def run(stage: str, builds_on: dict[str, str]) -> str:
        planned = records.specification(stage, "core", builds_on)
        folder = tmp_path / records.name_of(planned)
        write_record(folder / "specification.json", planned)
        record = records.provenance(planned, records.manifest_record(planned))
        write_record(folder / "manifest.provenance.json", record)
        return records.name_of(planned)

    pipeline = run("pipeline", {})
    delta = run("unlearning", {"pipeline": pipeline})
    learned = run("inversion", {"pipeline": pipeline, "delta": delta})
    samples = run("samples", {"pipeline": pipeline, "embeddings": learned, "delta": delta})
    found = tmp_path / run("predictions", {"samples": samples})
    one = predictions(found, 6, 4)
    wanted = settings(seeds=(0,))
    lines = list(
        probe_lines(
            wanted.model_copy(update={"rows": wanted.rows[1:], "conditions": wanted.conditions[:1]}),
            {"core/0/usual": one},
        )
    )
    made = lines_of(provenance_csv(lines))
    assert [(line["stage"], line["commit"], line["seed"]) for line in made] == [
        (stage, "c0ffee", "0") for stage in ("unlearning", "inversion", "samples", "predictions")
    ]
    assert {(line["row"], line["condition"]) for line in made} == {("core", "usual")}


def test_a_curve_begins_with_the_usual_images(inputs: dict[str, Manifest]) -> None:
    with chart_style():
        figure = probe_chart("relearning", list(probe_lines(settings(), inputs)))
    (axis,) = figure.axes
    (curve,) = [container for container in axis.containers if container.get_label().startswith("core")]
    assert [list(values) for values in curve.lines[0].get_data()] == [[0, 1], [2.5, 55.0]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "5"]
