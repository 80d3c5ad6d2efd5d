"""Targets: the paths of tables and figures, and the runs that make them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS
from corelib.runs.run import Run
from corelib.study.schema import NAME, Study
from corelib.study.study_files import PAPER

PRODUCT_ENDINGS: Mapping[str, tuple[str, ...]] = {
    r"table\w+": ("csv", "md", "tex", "cells.csv", "pairs.csv", "styles.csv", "confusion.csv", "provenance.csv"),
    r"charts\w+": tuple(
        f"{chart}.{kind}"
        for chart in ("tradeoff", "values", "styles", "confusion", "losses")
        for kind in ("pdf", "png")
    ),
    r"distances\w+": ("csv", "md"),
    r"figure\w+": ("png",),
    r"probe\w+": ("csv", "md", "pdf", "png"),
    r"sequence\w+": ("csv", "md", "pdf", "png"),
    "gate": ("csv", "md"),
    "claims": ("md", "csv", "checks.csv"),
    "report": ("html", "costs.md", "costs.csv"),
}
"""The endings of the files of a product, by the pattern of its name. Its manifest ends in `json`."""

PRODUCT_NAMES = "|".join(PRODUCT_ENDINGS)
"""Pattern of the names of products."""

PRODUCT_FILE = re.compile(rf"({PRODUCT_NAMES})\.\w+(\.\w+)?")

SUMMARIES = ("claims", "report")
"""Names of products over everything that is built, whatever it is."""


def is_summary(target: str) -> bool:
    """Whether a target is a product over everything that is built; it is planned after the other products."""
    return product_of(Path(target)) in SUMMARIES


def product_of(target: Path) -> str:
    """The name of the product to which a file belongs: `table1` for `table1.cells.csv`."""
    return target.name.partition(".")[0]


def files_of(target: Path) -> list[Path]:
    """The files of the product to which a file belongs, without its manifest."""
    product = product_of(target)
    (endings,) = (endings for name, endings in PRODUCT_ENDINGS.items() if re.fullmatch(name, product))
    return [target.with_name(f"{product}.{ending}") for ending in endings]


def relative_target(target: str) -> str:
    """A target as a path relative to the working directory, as Snakemake spells it; unchanged if it is elsewhere.

    The working directory may have been reached through links.
    """
    path = Path(os.path.normpath(target))
    if not path.is_absolute():
        return os.path.relpath(path)
    for above in path.parents:
        if above.is_dir() and above.samefile(Path.cwd()):
            return str(path.relative_to(above))
    return target


def targets_of(name: str, study: Study) -> list[str]:
    """The targets that make Snakemake build every product of a study."""
    place = RESULTS if name == PAPER else RESULTS / name
    gate = [] if study.gate is None else [str(place / "gate.md")]
    tables = [str(place / f"{table}.csv") for table in study.tables]
    charts = [str(place / f"{charts_name(table)}.tradeoff.png") for table in study.tables]
    distances = [
        str(place / f"{distances_name(name)}.md") for name, table in study.tables.items() if study.retrained_row(table)
    ]
    figures = [str(place / f"{figure}.png") for figure in study.figures]
    probes = [str(place / f"{probe}.csv") for probe in study.probes]
    sequences = [str(place / f"{sequence}.csv") for sequence in study.sequences]
    claims = [str(place / "claims.md")] if study.has_claims else []
    return [*gate, *tables, *charts, *distances, *figures, *probes, *sequences, *claims, str(place / "report.html")]


def charts_name(table: str) -> str:
    """The name of the charts of a table: `charts1` for `table1`."""
    return f"charts{table.removeprefix('table')}"


def distances_name(table: str) -> str:
    """The name of the distances of a table's rows to its retrained models: `distances1` for `table1`."""
    return f"distances{table.removeprefix('table')}"


def study_at(place: Path) -> str:
    """The study whose products are in a folder."""
    return PAPER if place == RESULTS else place.name


def product_at(place: Path, product: str, products_of: Callable[[str], Mapping[str, Run]]) -> Run:
    """The run of the product of that name in a folder.

    Raises `ConfigurationError` if the study of that folder has no such product.
    """
    if place == RESULTS / PAPER:
        raise ConfigurationError(
            f"{place}/{product}: expected {RESULTS}/{product}, since the paper's products are in {RESULTS}."
        )
    if place != RESULTS and not (place.parent == RESULTS and NAME.fullmatch(place.name)):
        raise ConfigurationError(f"{place}/{product}: expected {RESULTS}/{product}, or {RESULTS}/STUDY/{product}.")
    products = products_of(study_at(place))
    if product not in products:
        raise ConfigurationError(
            f"{place}/{product}: study {study_at(place)!r} has no such product, expected one of {', '.join(products)}."
        )
    return products[product]


def product_files() -> tuple[dict[Path, list[Path]], list[Path]]:
    """The files in `results/` with the name of a product, by the path of its manifest; and all other files there.

    Files with a leading dot, leases and lists of attempts are omitted: they are unfinished state.
    """
    products: dict[Path, list[Path]] = {}
    others = []
    for path in sorted(
        {*RESULTS.rglob("*"), *RESULTS.glob("*/*")}
    ):  # a study's folder may be a link, which rglob does not follow
        parts = path.relative_to(RESULTS).parts
        is_hidden = any(part.startswith(".") for part in parts)
        if path.is_dir() or is_hidden or path.name.endswith((".lease", ".attempts.json")):
            continue
        if len(parts) <= 2 and PRODUCT_FILE.fullmatch(path.name):
            products.setdefault(path.with_name(f"{path.name.partition('.')[0]}.json"), []).append(path)
        else:
            others.append(path)
    return products, others


def assets_command(study: str) -> str:
    """The command that provides a study's assets, to be used in a sentence."""
    return "`make assets`" if study == PAPER else f"`make assets STUDY={study}`"
