"""The content of `results/`: which runs each product was made from."""

from __future__ import annotations

from pathlib import Path

from corelib.errors import ArtefactError
from corelib.files.sealed_json import read_or_none
from corelib.maintenance.runs_on_disk import specification_of
from corelib.runs.layout import RUNS
from corelib.runs.manifest import ManifestRecord, read_manifest
from corelib.runs.provenance_record import provenance_path, read_provenance
from corelib.runs.specification import Specification
from corelib.runs.stage_registry import PRODUCTS
from corelib.study.targets import product_files


def runs_of_products() -> dict[Path, set[str]]:
    """For each product in `results/`, by the path of its manifest, the names of the runs from which it was made.

    A product has a manifest, a provenance record or both; other files are ignored. Raises `ArtefactError` if neither
    the record, nor the manifest together with the specification in `runs/`, names the runs of a product.
    """
    runs = {}
    for path in product_files()[0]:
        if not (path.exists() or provenance_path(path).exists()):
            continue
        record, manifest = read_or_none(read_provenance, provenance_path(path)), read_or_none(read_manifest, path)
        if record is not None and (manifest is None or manifest.seal == record.manifest.seal):
            runs[path] = _names_in(record.manifest, record.specification)
        elif manifest is not None and (specification := _specification_of_product(manifest)) is not None:
            runs[path] = _names_in(manifest, specification)
        else:
            raise ArtefactError(
                f"{path}: neither it nor its provenance record names the runs of {path.stem}, so these would count as "
                f"unused; ask for the target again, or move {path.with_suffix('')}.* elsewhere."
            )
    return runs


def _specification_of_product(manifest: ManifestRecord) -> Specification | None:
    """The specification of a product in `runs/`; None if it is missing or damaged, or if there are several."""
    if manifest.stage not in PRODUCTS or not manifest.digest.isalnum():
        return None
    folders = list((RUNS / manifest.stage).glob(f"*-{manifest.digest[:12]}"))
    return read_or_none(specification_of, folders[0]) if len(folders) == 1 else None


def _names_in(manifest: ManifestRecord, specification: Specification) -> set[str]:
    """The run of a product, its inputs, and the trained models behind these."""
    return {specification.name, *specification.builds_on.values(), *manifest.trained}
