"""The code that runs is the code that is hashed, even if there are compiled files beside it."""

from __future__ import annotations

import os
import py_compile
from pathlib import Path

import pytest
from support.checkout import Checkout

PROBE = "from corelib.probe import VALUE; print('value', VALUE)"
WRITES_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


@pytest.fixture
def clone(tmp_path: Path) -> Checkout:
    made = Checkout.at(tmp_path / "clone")
    (made.folder / "corelib/probe.py").write_text("VALUE = 'old'\n")
    return made


def printed_value(clone: Checkout) -> str:
    return clone.python("-c", PROBE, **WRITES_BYTECODE).stdout.strip()


def edit_unnoticed(path: Path, old: str, new: str) -> None:
    """Replace a text by one of the same length, and keep the file's time stamp."""
    before, text = path.stat(), path.read_text()
    assert old in text and len(old) == len(new)
    path.write_text(text.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


def test_an_edit_of_the_same_size_and_time_stamp_runs(clone: Checkout) -> None:
    assert printed_value(clone) == "value old"
    edit_unnoticed(clone.folder / "corelib/probe.py", "old", "new")
    assert printed_value(clone) == "value new"


def test_an_edit_of_the_same_size_and_time_stamp_runs_in_snakemake(clone: Checkout) -> None:
    command = ("-m", "snakemake", "--dry-run", "results/nowhere/table1.csv")
    assert "expected one of" in (before := clone.python(*command, **WRITES_BYTECODE).stdout), before
    for path in (clone.folder / "corelib").rglob("*.py"):
        if "expected one of" in path.read_text():
            edit_unnoticed(path, "expected one of", "EXPECTED ONE OF")
    assert "EXPECTED ONE OF" in clone.python(*command, **WRITES_BYTECODE).stdout


def test_an_edit_of_the_same_size_and_time_stamp_runs_in_the_commands(clone: Checkout) -> None:
    command = ("-m", "corelib", "--help")
    assert "list the running and the queued jobs" in clone.python(*command, **WRITES_BYTECODE).stdout
    edit_unnoticed(clone.folder / "corelib/commands/jobs.py", "list the running", "LIST THE RUNNING")
    assert "LIST THE RUNNING" in clone.python(*command, **WRITES_BYTECODE).stdout


def test_a_module_without_its_source_cannot_be_imported(clone: Checkout) -> None:
    """By default, Python runs a `.pyc` file in the place of a missing source file."""
    source = clone.folder / "corelib/probe.py"
    py_compile.compile(str(source), cfile=str(source.with_suffix(".pyc")))
    source.unlink()
    assert "No module named 'corelib.probe'" in printed_value(clone)


@pytest.mark.parametrize("shadow", ["probe/__init__.py", "probe/__init__.pyc"])
def test_a_folder_of_the_same_name_does_not_hide_the_module_that_is_hashed(shadow: str, clone: Checkout) -> None:
    file = clone.folder / "corelib" / shadow
    file.parent.mkdir()
    if file.suffix == ".pyc":
        py_compile.compile(str(clone.folder / "corelib/probe.py"), cfile=str(file))
        (clone.folder / "corelib/probe.py").write_text("VALUE = 'new'\n")
    else:
        file.write_text("VALUE = 'other'\n")
        (clone.folder / "corelib/probe.py").write_text("VALUE = 'new'\n")
    assert printed_value(clone) == "value new"


def test_a_compiled_module_does_not_hide_the_module_that_is_hashed(clone: Checkout) -> None:
    (clone.folder / "corelib/probe.so").write_bytes(b"not a library")
    assert printed_value(clone) == "value old"


def test_a_folder_without_source_is_no_module(clone: Checkout) -> None:
    (clone.folder / "corelib/probe.py").unlink()
    (clone.folder / "corelib/probe").mkdir()
    assert "No module named 'corelib.probe'" in clone.python("-c", "import corelib.probe").stdout


def test_a_linked_module_runs_the_target_of_the_link(clone: Checkout, tmp_path: Path) -> None:
    path = clone.folder / "corelib/probe.py"
    path.rename(tmp_path / "elsewhere.py")
    path.symlink_to(tmp_path / "elsewhere.py")
    assert printed_value(clone) == "value old"
    edit_unnoticed(tmp_path / "elsewhere.py", "old", "new")
    assert printed_value(clone) == "value new"


def test_importing_the_library_writes_no_bytecode_of_it_and_does_not_affect_other_packages(clone: Checkout) -> None:
    assert printed_value(clone) == "value old"
    written = {path.name.partition(".")[0] for path in (clone.folder / "corelib").rglob("*.pyc")}
    assert written == {"__init__", "source_import"}, "the two that install the finder, which compute nothing"
    probe = "import corelib.probe, yaml; print(type(yaml.__loader__).__name__)"
    assert clone.python("-c", probe).stdout.strip() == "SourceFileLoader"
