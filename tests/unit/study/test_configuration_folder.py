"""What the folder `config` says about itself, and the entry of the workflow catalogue."""

from __future__ import annotations

import re

from support.checkout import REPOSITORY

from corelib.files.yaml_files import read_yaml
from corelib.study.json_schema import overlay_schema
from corelib.study.study_files import SHIPPED, study_names

PAGE = (SHIPPED / "README.md").read_text()
FILES, STUDIES, SECTIONS = (part.split("\n\n")[0] for part in re.split(r"\n\| --- \| --- \|\n", PAGE)[1:])


def first_cells(table: str) -> list[str]:
    """The names in the first column of a table."""
    return [name for line in table.splitlines() for name in re.findall(r"`([\w.\-/]+)`", line.split(" | ")[0])]


def test_the_page_names_every_file() -> None:
    shipped = {file.name for file in SHIPPED.iterdir()} - {"README.md", "studies", "assets.lock.json"}
    assert {name.rstrip("/") for name in first_cells(FILES)} - {"studies/NAME.yaml", "assets.lock.json"} == shipped


def test_the_page_names_every_study() -> None:
    assert {*first_cells(STUDIES)} - {"config.yaml"} == {*study_names(SHIPPED)}


def test_the_page_names_every_section_of_a_study() -> None:
    assert sorted(first_cells(SECTIONS)) == sorted(overlay_schema()["properties"])


def test_every_link_of_the_page_has_a_target() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(links) >= 5 and all((SHIPPED / link).is_file() for link in links)


def test_the_catalogue_finds_what_its_entry_promises() -> None:
    entry = read_yaml(REPOSITORY / ".snakemake-workflow-catalog.yml")
    assert entry["usage"].keys() == {"mandatory-flags", "software-stack-deployment"}
    assert entry["usage"]["mandatory-flags"].keys() == {"desc", "flags"}
    deployment = entry["usage"]["software-stack-deployment"]
    rules = "".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    assert deployment["conda"] is ("conda:" in rules)
    assert deployment["apptainer"] is deployment["apptainer+conda"] is ("container:" in rules)
    assert deployment["report"] is ("report(" in rules)
    assert (REPOSITORY / "workflow/Snakefile").is_file() and "snakemake" in (REPOSITORY / "README.md").read_text()
