"""Export of the numbers of a study in two files for other programs, such as leaderboards: one as JSON, one as CSV.

The numbers are those of the products in `results/`, after the same check that Snakemake makes; nothing is computed.
docs/results.md describes the files.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError, ConfigurationError, short_message
from corelib.files.atomic import atomic_folder, write_text
from corelib.files.csv_files import as_csv
from corelib.files.json_files import write_json
from corelib.maintenance.export_folder import check_is_new
from corelib.runs.layout import RESULTS
from corelib.runs.provenance_record import Provenance, provenance_path, read_provenance
from corelib.runs.run import Run
from corelib.settings.distances import ComparisonStage
from corelib.study.loading import load_plan
from corelib.study.plan import Plan
from corelib.study.row_names import tasks_and_rows
from corelib.study.schema import Row, anchors_in_words
from corelib.study.staleness import product_fault
from corelib.study.study_files import PAPER
from corelib.version import VERSION

FORMAT_VERSION = 1
"""Version of the files; it grows whenever a column is removed or changes its meaning."""

RESULTS_JSON, RESULTS_CSV = "results.json", "results.csv"

COLUMNS = (
    "study", "world", "product", "kind", "task", "row", "method", "title", "anchors",
    "step", "forgotten", "way", "condition", "style", "set", "timestep", "metric", "seed", "seeds", "retrained_seed",
    "k", "n", "value", "sd", "low", "high", "interval",
    "diverged_at", "search_diverged_at", "flagged", "gate", "runs", "version", "commits",
)  # fmt: skip
"""The columns of the CSV file, and the keys of a record in the JSON file. An entry that does not apply is empty or
null."""

RECOGNISED = "recognised"
"""The metric of probes."""

METRICS = {
    "UA": "Images prompted with a forget style that are not recognised as that style, in percent; more is better.",
    "IRA": "Images prompted with a retain style that are recognised as that style, in percent; more is better.",
    "CRA": "Images of forget and retain styles that are recognised as their object, in percent; more is better. After "
    "a step of a sequence, only images of retain styles count.",
    "SFID": "The FID of the original model over that of this model, in percent and at most 100; more is better.",
    "Total": "The sum of UA, IRA, CRA and SFID, as far as they are measured; more is better.",
    "UA new": "UA of the styles that a step of a sequence forgets.",
    "UA earlier": "UA of the styles that the steps before it forget.",
    RECOGNISED: "Images under a condition of a probe that are recognised as the style of their prompt, in percent; "
    "for a forget style, less is better.",
    "same style": "Images in which the classifier sees the same style as in the retrained model's image of the same "
    "prompt and noise, in percent; more is nearer.",
    "same object": "The same as `same style`, of objects.",
    "same both": "The same as `same style`, of style and object together.",
    "FID": "The Frechet distance between the images of this model and those of a retrained model; less is nearer.",
    "noise": "The mean squared difference between the noise that this model and a retrained model predict, at one "
    "timestep; less is nearer.",
}  # fmt: skip
"""The meaning of each metric."""

ALL = "all"
"""The seed of a number of all training seeds, and the style of a number of all styles, in the files of products."""

Record = dict[str, Any]


@dataclass(frozen=True)
class ExportedResults:
    """What an export contains.

    Attributes:
        numbers: number of records.
        products: names of the exported products.
        missing: why a product is not exported, by its name.
    """

    numbers: int
    products: Sequence[str]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class _Product:
    """A product that is up to date: its run, its manifest in `results/`, and the provenance record beside that."""

    name: str
    run: Run
    manifest: Path
    record: Provenance

    def lines(self, ending: str) -> list[dict[str, str]]:
        """The lines of one of its CSV files."""
        with self.manifest.with_name(f"{self.name}.{ending}").open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))


class _Origins:
    """The runs and commits behind the numbers of a product, from its provenance as CSV.

    Args:
        product: the product.
        columns: the columns, besides that of the seed, that name a number.
    """

    def __init__(self, product: _Product, columns: Sequence[str]) -> None:
        self._columns = columns
        self._jobs: dict[tuple[str, ...], list[dict[str, str]]] = {}
        for job in product.lines("provenance.csv"):
            self._jobs.setdefault(self._key(job), []).append(job)

    def _key(self, line: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(line[column] for column in self._columns)

    def of(self, line: Mapping[str, str], stage: str) -> dict[str, list[str]]:
        """The entries `runs` and `commits` of a record.

        Args:
            line: the line of the number, with the names of the runs that count its images.
            stage: the stage of these runs.
        """
        jobs = [job for job in self._jobs.get(self._key(line), []) if line["seed"] in (ALL, job["seed"])]
        runs = [f"{job['stage']}/{job['run']}" for job in jobs] + [f"{stage}/{run}" for run in line["run"].split()]
        return {"runs": _unique(runs), "commits": _unique([job["commit"] for job in jobs])}


def export_results(name: str, folder: Path, configuration: Path) -> ExportedResults:
    """Write the numbers of the tables, distances, probes and sequences of a study that are up to date.

    Args:
        name: name of the study.
        folder: destination, which must not exist.
        configuration: the folder of the configuration.

    Raises `ConfigurationError` if there is no such study, `folder` exists, or no product can be exported, and
    `ArtefactError` if a product cannot be read.
    """
    check_is_new(folder)
    plan = load_plan(name, configuration)
    place = RESULTS if name == PAPER else RESULTS / name
    products: list[_Product] = []
    missing: dict[str, str] = {}
    for product, run in plan.products().items():
        if run.stage not in _READERS:
            continue
        manifest = place / f"{product}.json"
        fault = product_fault(manifest, run)
        if fault is None:
            products.append(_Product(product, run, manifest, read_provenance(provenance_path(manifest))))
        else:
            missing[product] = fault
    if not products:
        first = next(iter(missing), None)
        reason = "" if first is None else f" ({missing[first]}); build one: snakemake {place / first}.csv"
        raise ConfigurationError(f"study {name}: none of its tables, probes and sequences is up to date{reason}.")
    records = [record for product in products for record in _records(product, plan)]
    with atomic_folder(folder) as temporary:
        write_json(temporary / RESULTS_JSON, {"header": _header(plan, products, missing), "records": records})
        write_text(temporary / RESULTS_CSV, as_csv([COLUMNS, *(map(_entry, record.values()) for record in records)]))
    return ExportedResults(len(records), [product.name for product in products], missing)


def _header(plan: Plan, products: Sequence[_Product], missing: Mapping[str, str]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "study": plan.name,
        "world": plan.study.world.kind,
        "software": f"corelib {VERSION}",
        "metrics": METRICS,
        "products": {
            product.name: {"version": product.record.version, "commit": product.record.commit} for product in products
        },
        "missing": dict(missing),
    }


def _records(product: _Product, plan: Plan) -> list[Record]:
    """The records of a product. Raises `ArtefactError` if its CSV files do not have the columns or values of one."""
    try:
        _, rows = tasks_and_rows(plan, str(product.manifest), product.name)
        rows_by_name = {row.name: row for row in rows}
        return [
            _complete(record, plan, product, rows_by_name[record["row"]])
            for record in _READERS[product.run.stage](product)
        ]
    except (KeyError, ValueError, csv.Error) as error:
        raise ArtefactError(
            f"{product.manifest}: its CSV files are not those of such a product ({short_message(error)}); delete it "
            "and ask for the target again."
        ) from None


def _complete(record: Record, plan: Plan, product: _Product, row: Row) -> Record:
    """A record with all keys, in their order: what its product says, and the method and anchors of its row."""
    known = {
        "study": plan.name,
        "world": plan.study.world.kind,
        "product": product.name,
        "method": row.method,
        "title": " ".join(plan.study.title_of(row).split()),
        "anchors": _anchors_of(plan, record["task"], row),
        "version": product.record.version,
        **record,
    }
    return {column: known.get(column) for column in COLUMNS}


def _anchors_of(plan: Plan, task: str, row: Row) -> str | None:
    if not plan.study.has_anchors(row.method):
        return None
    scheme = row.anchors or plan.study.anchors_of(row.method, task)
    return None if scheme is None else anchors_in_words(scheme)


# Records of each kind of product


def _of_table(product: _Product) -> Iterator[Record]:
    origins = _Origins(product, ("task", "row", "metric"))
    for line in product.lines("cells.csv"):
        yield {
            "kind": "table",
            **{column: line[column] for column in ("task", "row", "metric")},
            **_seeds(line),
            **_numbers(line, "k", "n", "value", "sd", "low", "high"),
            "interval": line["interval"] or None,
            **_warnings(line),
            "gate": line["gate"],
            **origins.of(line, "cells"),
        }


def _of_comparison(product: _Product) -> Iterator[Record]:
    settings = product.run.settings
    assert isinstance(settings, ComparisonStage)
    runs = {
        (row.task, row.row, "" if pair.seed is None else str(pair.seed), str(pair.retrained_seed)): pair.distances
        for row in settings.rows
        for pair in row.pairs
    }
    for line in product.lines("csv"):
        role = runs[line["task"], line["row"], line["seed"], line["retrained_seed"]]
        yield {
            "kind": "distances",
            **{column: line[column] for column in ("task", "row")},
            "set": line["images"],
            "metric": line["measure"],
            **_seeds(line),
            **_numbers(line, "timestep", "retrained_seed", "k", "n", "value"),
            "runs": [product.run.inputs[role].name],
        }


def _of_probe(product: _Product) -> Iterator[Record]:
    origins = _Origins(product, ("task", "row", "condition"))
    for line in product.lines("csv"):
        yield {
            "kind": "probe",
            **{column: line[column] for column in ("task", "row", "condition", "style")},
            "metric": RECOGNISED,
            **_seeds(line),
            **_numbers(line, "k", "n", "value", "low", "high"),
            "interval": line["interval"],
            **_warnings(line),
            "search_diverged_at": _steps(line["search_diverged_at"]),
            **origins.of(line, "predictions"),
        }


def _of_sequence(product: _Product) -> Iterator[Record]:
    origins = _Origins(product, ("step", "row", "way"))
    for line in product.lines("csv"):
        yield {
            "kind": "sequence",
            **{column: line[column] for column in ("task", "row", "step", "way", "style")},
            "metric": line["measure"],
            **_seeds(line),
            **_numbers(line, "forgotten", "k", "n", "value", "low", "high"),
            "interval": line["interval"],
            **_warnings(line),
            **origins.of(line, "predictions"),
        }


_READERS: Mapping[str, Callable[[_Product], Iterator[Record]]] = {
    "tables": _of_table,
    "comparisons": _of_comparison,
    "probes": _of_probe,
    "sequences": _of_sequence,
}
"""The records of a product, by its stage. Products of other stages have no numbers of their own."""


def _seeds(line: Mapping[str, str]) -> dict[str, int | None]:
    """The training seed, and the number of seeds: 0 for a model without one, several for a number over seeds."""
    if line["seed"] == ALL:
        return {"seed": None, "seeds": len(line["run"].split())}
    return {"seed": int(line["seed"]), "seeds": 1} if line["seed"] else {"seed": None, "seeds": 0}


def _numbers(line: Mapping[str, str], *columns: str) -> dict[str, int | float | None]:
    return {column: _number(line[column]) for column in columns}


def _number(text: str) -> int | float | None:
    """A number; None if there is none, or if it is not finite, for which JSON has no value."""
    if not text:
        return None
    if text.isdecimal():
        return int(text)
    return value if math.isfinite(value := float(text)) else None


def _warnings(line: Mapping[str, str]) -> dict[str, Any]:
    return {"diverged_at": _steps(line["diverged_at"]), "flagged": int(line["flagged"])}


def _steps(text: str) -> list[int]:
    return [int(step) for step in text.split()]


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))


def _entry(value: object) -> object:
    """A value as an entry of a CSV file; the elements of a list are separated by spaces."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else value
