"""Targets: the paths of tables and figures, and the runs that make them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from corelib.errors import ConfigurationError
from corelib.runs.layout import RESULTS
from corelib.runs.run import Run
from corelib.runs.stage_registry import PRODUCTS
from corelib.study.schema import NAME, Study
from corelib.study.study_files import PAPER
from corelib.study.wording import expected_one_of

PRODUCT_NAMES = "|".join(product.names for product in PRODUCTS.values())
"""Pattern of the names of products."""

PRODUCT_FILE = re.compile(rf"({PRODUCT_NAMES})\.\w+(\.\w+)?")

SUMMARIES = tuple(product.names for product in PRODUCTS.values() if product.is_summary)
"""Names of products over everything that is built, whatever it is."""


def is_summary(target: str) -> bool:
    """Whether a target is a product over everything that is built; it is planned after the other products."""
    return product_of(Path(target)) in SUMMARIES


def product_of(target: Path) -> str:
    """The name of the product to which a file belongs: `table1` for `table1.cells.csv`."""
    return target.name.partition(".")[0]


def files_of(target: Path) -> list[Path]:
    """The files of the product to which a file belongs, without its manifest."""
    name = product_of(target)
    (product,) = (product for product in PRODUCTS.values() if re.fullmatch(product.names, name))
    return [target.with_name(f"{name}.{ending}") for ending in product.endings]


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
    return [str(files_of(place / product)[0]) for product in product_names(study)]


def product_names(study: Study) -> list[str]:
    """The names of all products of a study."""
    return [
        *(["gate"] if study.gate is not None else []),
        *study.tables,
        *map(charts_name, study.tables),
        *map(distances_name, study.tables_with_distances),
        *study.figures,
        *study.probes,
        *study.sequences,
        *(["claims"] if study.has_claims else []),
        "report",
    ]


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
            f"{place}/{product}: study {study_at(place)!r} has no such product, "
            f"{expected_one_of(product, list(products))}."
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
