"""The report on a sequence: its counts by step and way, intervals, warnings, and its chart."""

from __future__ import annotations

import csv
import io
import re
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
from corelib.reports.sequence_chart import sequence_chart
from corelib.reports.sequence_counts import sequence_lines
from corelib.reports.sequence_report import provenance_csv, report_sequence, to_csv
from corelib.runs.manifest import Manifest
from corelib.runs.stage_context import StageContext
from corelib.settings.sequence_report import SequenceModel, SequenceRow, SequenceStage, SequenceStep

STYLES, OBJECTS, SEEDS = ["Amber", "Blue", "Cream"], ["Cats"], list(range(10))


def predictions(
    folder: Path, recognised: dict[str, int], objects: int | None = 10, flagged: int = 0, diverged_at: int | None = None
) -> Manifest:
    """Predictions of ten images of each style: how many are recognised as it, and how many show the right object."""
    cells = [(style, seed) for style in STYLES for seed in SEEDS]
    table = pd.DataFrame(
        {
            "style": [style for style, _ in cells],
            "object": ["Cats"] * len(cells),
            "seed": [seed for _, seed in cells],
            "predicted_style": [style if seed < recognised[style] else "Other" for style, seed in cells],
            "predicted_object": [
                None if objects is None else "Cats" if seed < objects else "Dogs" for _, seed in cells
            ],
            "flagged": [at < flagged for at in range(len(cells))],
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(table, folder / PREDICTIONS)
    files = {PREDICTIONS: sha256_of_path(folder / PREDICTIONS)}
    return records.manifest(folder, files, stage="predictions", facts={"diverged_at": diverged_at})


def step(task: str, new: list[str], earlier: list[str]) -> SequenceStep:
    return SequenceStep(task=task, new=new, earlier=earlier, retain=["Cream"], objects=OBJECTS, seeds=SEEDS)


def models(*roles: str) -> list[list[SequenceModel]]:
    """The models of both steps, each with the training seeds 0 and 1."""
    return [[SequenceModel(seed=seed, predictions=f"{role}/{seed}") for seed in (0, 1)] for role in roles]


SETTINGS = SequenceStage(
    name="sequence1",
    steps=[step("One", ["Amber"], []), step("Two", ["Blue"], ["Amber"])],
    tasks={"in sequence": ["One", "Two"], "at once": ["One", "Both"]},
    rows=[
        SequenceRow(
            row="core",
            title="CORE\n(ours)",
            models={"at once": models("One", "Both"), "in sequence": models("One", "Two")},
        )
    ],
    note="A note.",
)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Manifest]:
    return {
        "One/0": predictions(tmp_path / "a", {"Amber": 1, "Blue": 10, "Cream": 9}),
        "One/1": predictions(tmp_path / "b", {"Amber": 2, "Blue": 10, "Cream": 10}),
        "Two/0": predictions(tmp_path / "c", {"Amber": 6, "Blue": 0, "Cream": 8}, objects=7, flagged=2),
        "Two/1": predictions(tmp_path / "d", {"Amber": 4, "Blue": 0, "Cream": 6}, diverged_at=5),
        "Both/0": predictions(tmp_path / "e", {"Amber": 0, "Blue": 3, "Cream": 9}),
        "Both/1": predictions(tmp_path / "f", {"Amber": 0, "Blue": 1, "Cream": 9}),
    }


def lines_of(text: str) -> dict[tuple[str, ...], dict[str, str]]:
    keys = ("step", "way", "measure", "seed", "style")
    return {tuple(line[key] for key in keys): line for line in csv.DictReader(io.StringIO(text))}


def test_ua_counts_lost_styles_of_the_step_and_of_the_steps_before_apart(inputs: dict[str, Manifest]) -> None:
    found = lines_of(to_csv(list(sequence_lines(SETTINGS, inputs))))
    shares = {key: (line["k"], line["n"]) for key, line in found.items()}
    assert shares["One", "in sequence", "UA new", "0", "Amber"] == ("9", "10")
    assert shares["One", "in sequence", "UA new", "all", "all"] == ("17", "20")
    assert shares["Two", "in sequence", "UA new", "all", "all"] == ("20", "20")
    assert shares["Two", "in sequence", "UA earlier", "0", "all"] == ("4", "10")
    assert shares["Two", "at once", "UA new", "1", "Blue"] == ("9", "10")
    assert shares["Two", "at once", "UA earlier", "all", "Amber"] == ("20", "20")
    assert not [key for key in found if key[0] == "One" and key[2] == "UA earlier"], "the first step has none"
    assert {line["task"] for key, line in found.items() if key[:2] == ("Two", "at once")} == {"Both"}
    assert {line["forgotten"] for key, line in found.items() if key[0] == "Two"} == {"2"}


def test_retention_counts_the_same_images_after_each_step(inputs: dict[str, Manifest]) -> None:
    found = lines_of(to_csv(list(sequence_lines(SETTINGS, inputs))))
    shares = {key: (line["k"], line["n"]) for key, line in found.items()}
    assert shares["One", "in sequence", "IRA", "all", "all"] == ("19", "20")
    assert shares["Two", "in sequence", "IRA", "0", "Cream"] == ("8", "10")
    assert shares["Two", "in sequence", "CRA", "0", "all"] == ("7", "10")
    assert {line["style"] for key, line in found.items() if key[2] == "CRA"} == {"Cream", "all"}


def test_intervals_are_wilsons_for_one_model_and_students_t_over_seeds(inputs: dict[str, Manifest]) -> None:
    found = lines_of(to_csv(list(sequence_lines(SETTINGS, inputs))))
    low, high = Count(4, 10).interval()
    one = found["Two", "in sequence", "UA earlier", "0", "all"]
    assert (one["interval"], one["low"], one["high"]) == ("Wilson", f"{low:.2f}", f"{high:.2f}")
    low, high = accuracy_interval([Count(4, 10), Count(6, 10)])
    both = found["Two", "in sequence", "UA earlier", "all", "all"]
    assert (both["interval"], both["low"], both["high"]) == ("t over 2 seeds", f"{low:.2f}", f"{high:.2f}")


def test_flagged_images_and_divergence_are_in_the_lines_and_the_remarks(
    inputs: dict[str, Manifest], tmp_path: Path
) -> None:
    found = lines_of(to_csv(list(sequence_lines(SETTINGS, inputs))))
    assert found["Two", "in sequence", "UA earlier", "0", "all"]["flagged"] == "2"
    assert found["Two", "in sequence", "UA new", "0", "all"]["flagged"] == "0"
    assert found["Two", "in sequence", "IRA", "all", "all"]["diverged_at"] == "5"
    (tmp_path / "out").mkdir()
    result = report_sequence(SETTINGS, StageContext(tmp_path / "out", "digest", inputs))
    assert result.files == ["sequence1.csv", "sequence1.md", "sequence1.pdf", "sequence1.png"]
    assert result.records == ["sequence1.provenance.csv"]
    text = (tmp_path / "out/sequence1.md").read_text()
    diverged = "seed 1: the training of the model diverged at step 5"
    notes = f"[^1]: {diverged}.\n\n[^2]: seed 0: 2 images constant or not finite; {diverged}.\n"
    assert text.count("## CORE (ours)") == 1 and text.endswith(f"A note.\n\n{notes}")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row[2] for row in rows[1:]] == ["in sequence", "at once"] * 2
    assert [re.findall(r"\[\^\d\]", cell) for cell in rows[3][3:]] == [["[^1]"], ["[^2]"], ["[^1]"], ["[^1]"]]
    assert rows[1][4] == "", "no styles are forgotten before the first step"


def test_every_count_names_the_jobs_behind_it_from_the_training_of_the_first_task(tmp_path: Path) -> None:
    def run(stage: str, slug: str, builds_on: dict[str, str]) -> str:
        planned = records.specification(stage, slug, builds_on)
        folder = tmp_path / records.name_of(planned)
        write_record(folder / "specification.json", planned)
        record = records.provenance(planned, records.manifest_record(planned))
        write_record(folder / "manifest.provenance.json", record)
        return records.name_of(planned)

    def judged(slug: str, delta: str) -> Manifest:
        samples = run("samples", slug, {"pipeline": pipeline, "delta": delta})
        folder = tmp_path / run("predictions", slug, {"samples": samples})
        return predictions(folder, {"Amber": 0, "Blue": 0, "Cream": 9})

    pipeline = run("pipeline", "base", {})
    one = run("unlearning", "one", {"pipeline": pipeline})
    two = run("unlearning", "two", {"pipeline": pipeline, "start": one})
    models = {"in sequence": [[SequenceModel(seed=0, predictions=name)] for name in ("One/0", "Two/0")]}
    row = SETTINGS.rows[0].model_copy(update={"models": models})
    found = {"One/0": judged("one", one), "Two/0": judged("two", two)}
    lines = list(sequence_lines(SETTINGS.model_copy(update={"rows": [row]}), found))
    made = list(csv.DictReader(io.StringIO(provenance_csv(lines))))
    assert {(line["row"], line["way"], line["seed"], line["commit"]) for line in made} == {
        ("core", "in sequence", "0", "c0ffee")
    }
    jobs = [(line["step"], line["stage"], line["run"].split("-")[0]) for line in made]
    assert jobs == [
        *(("One", stage, "one") for stage in ("unlearning", "samples", "predictions")),
        ("Two", "unlearning", "one"),
        *(("Two", stage, "two") for stage in ("unlearning", "samples", "predictions")),
    ]


def test_the_chart_has_a_curve_for_each_row_and_way(inputs: dict[str, Manifest]) -> None:
    with chart_style():
        chart = sequence_chart(list(sequence_lines(SETTINGS, inputs)))
    new, earlier, _, cra = chart.axes
    labels = [container.get_label() for container in new.containers]
    assert labels == ["CORE (ours), in sequence", "CORE (ours), at once"]
    (in_sequence, *_), _ = (container.lines for container in new.containers)
    assert list(in_sequence.get_xdata()) == [1, 2] and list(in_sequence.get_ydata()) == [85.0, 100.0]
    assert [list(container.lines[0].get_xdata()) for container in earlier.containers] == [[2], [2]]
    assert len(cra.containers) == 2 and len(chart.legends) == 1


def test_without_a_judge_of_objects_there_is_no_cra(inputs: dict[str, Manifest], tmp_path: Path) -> None:
    blind = {
        role: predictions(tmp_path / f"blind{at}", {"Amber": 0, "Blue": 0, "Cream": 9}, objects=None)
        for at, role in enumerate(inputs)
    }
    lines = list(sequence_lines(SETTINGS, blind))
    assert {line.measure for line in lines} == {"UA new", "UA earlier", "IRA"}
    with chart_style():
        assert len(sequence_chart(lines).axes) == 4


def test_a_missing_image_is_an_error(inputs: dict[str, Manifest]) -> None:
    more = [one.model_copy(update={"seeds": [*SEEDS, 99]}) for one in SETTINGS.steps]
    with pytest.raises(ArtefactError, match="the predictions lack the image"):
        list(sequence_lines(SETTINGS.model_copy(update={"steps": more}), inputs))
