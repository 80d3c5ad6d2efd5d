"""Clones and environments at paths with special characters: they work, or are refused in one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake_interface_executor_plugins.utils import format_cli_arg
from support.checkout import REPOSITORY, Checkout

from corelib.files.shell_paths import cluster_path_fault, path_faults

PARTS = [
    " ", "'", '"', "$", "$HOME", ";", "&", "(", ")", "`", "\n", "\t", "*", "?", "[x]", "{", "}", "{x}", "{a,c}",
    "{1..3}", "{a{b,c}}", "~", "#", " #", "!", "|", "<", ">", "\\", "%", "é", "日本", "@", "=", "+", ",", "^", "'$",
    "'\"", "' x", "\x7f", "\u00a0", "-",
]  # fmt: skip


def printed_by_shell(command: str) -> str:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("part", PARTS)
def test_an_interpreter_is_refused_if_and_only_if_a_shell_would_not_find_it(part: str, tmp_path: Path) -> None:
    for name, output in (("a0b", "another"), ("axb", "another"), (f"a{part}b", "this one")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "python").write_text(f"#!/bin/sh\necho {output} $1\n")
        (tmp_path / name / "python").chmod(0o755)
    python = tmp_path / f"a{part}b" / "python"
    works = printed_by_shell(f"{python} -m") == "this one -m\n"  # as Snakemake writes it
    assert bool(list(path_faults(python, tmp_path))) is not works


@pytest.mark.parametrize("part", PARTS)
def test_a_snakefile_is_refused_if_and_only_if_a_cluster_would_get_another_path(part: str) -> None:
    snakefile = f"/a{part}b/Snakefile"
    command = format_cli_arg("--snakefile", snakefile)
    wrapped = command.replace('"', '\\"')  # as the Slurm executor does, for `--wrap="..."`
    script = printed_by_shell(f'printf %s "{wrapped}"')
    submitted, in_job_step = (printed_by_shell(f"printf '%s\\n' {text}") for text in (script, command))
    works = submitted == in_job_step == f"--snakefile\n{snakefile}\n"
    assert (cluster_path_fault(Path(snakefile)) is None) is works


def test_a_colon_in_the_path_of_a_clone_is_refused() -> None:
    (fault,) = path_faults(Path("/usr/bin/python3"), Path("/home/me/a:b"))
    assert fault.startswith("/home/me/a:b: its path contains a colon, ") and "\n" not in fault
    assert not list(path_faults(Path("/usr/bin/python3"), Path("/home/me/it's a $clone")))


@pytest.mark.parametrize("name", ["my clone", "it's", "a$b", "a;b", "a\nb"])
def test_no_environment_is_created_at_a_path_where_it_would_not_work(name: str, tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / name)
    shutil.copy(REPOSITORY / "Makefile", checkout.folder)
    shutil.copytree(REPOSITORY / "envs", checkout.folder / "envs", dirs_exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MAKEFLAGS")}
    command = ["make", "env", f"PYTHON={sys.executable}"]
    done = subprocess.run(
        command, cwd=checkout.folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0 and done.stderr.count("Error: ") == 1, done.stderr
    assert "/.venv/bin/python: its path contains " in done.stderr and "make env VENV=/some/folder" in done.stderr
    assert not (checkout.folder / ".venv").exists()


def link_environment(folder: Path) -> str:
    """Link the present environment into a folder, and return its interpreter."""
    (folder / ".venv").symlink_to(sys.prefix)
    return str(folder / ".venv/bin/python")


@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="the tests do not run in a virtual environment")
@pytest.mark.parametrize("arguments", [("-n", "results/mini/table1.csv"), ("--cores", "1", "results/mini/table1.csv")])
def test_snakemake_stops_with_one_sentence_if_its_jobs_could_not_start(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    checkout = Checkout.at(tmp_path / "my clone")
    python = link_environment(checkout.folder)
    command = [python, "-m", "snakemake", *arguments]
    done = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, check=False, timeout=120)
    output = done.stdout + done.stderr
    assert done.returncode == 1 and output.count(f"Error: {python}: its path contains a blank, ") == 1, output
    assert "Traceback" not in output and "Exception" not in output
    found = subprocess.run(
        [python, "-m", "corelib", "preflight", "mini"],
        cwd=checkout.folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert f"FAULT  place     {python}: its path contains a blank, " in found.stdout


def test_jobs_run_in_a_clone_whose_path_has_many_special_characters(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / 'it\'s a "$clone"; `true` & (more)')
    done = checkout.snakemake("--cores", "1", "results/mini/table1.csv", "--until", "adopt_pretrained")
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(list((checkout.folder / "runs/pretrained").glob("*/manifest.json"))) == 1


def test_no_command_that_a_cluster_would_split_is_submitted(tmp_path: Path) -> None:
    checkout = Checkout.at(tmp_path / "a$clone")
    done = checkout.snakemake("--profile", "slurm", "results/mini/table1.csv")
    assert done.returncode == 1, done.stdout
    assert done.stdout.count("/a$clone/Snakefile: its path contains `$`, which breaks the commands") == 1, done.stdout
    assert "Traceback" not in done.stdout and not (checkout.folder / "runs").exists()
