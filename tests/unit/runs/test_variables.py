"""Every variable in docs/variables.md is treated as the page describes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkout import REPOSITORY, Checkout
from support.toy_job import Toy, toy_at

from corelib.errors import ConfigurationError
from corelib.runs.environment import ALLOWED, CLEARED_PATTERNS, FIXED, RECORDED, check_variables, prepare_environment

PAGE = REPOSITORY / "docs/variables.md"


def rows() -> Iterator[tuple[list[str], list[str], str]]:
    """The names or patterns of each row about variables, the examples, and the treatment."""
    for line in PAGE.read_text().partition("## Variables")[2].partition("## Packages")[0].splitlines():
        if line.startswith("| `"):
            names, examples, *_, treatment = [cell.strip() for cell in line.strip("|").split(" |")]
            yield re.findall(r"`([^`]+)`", names), re.findall(r"`([^`]+)`", examples), treatment


def names_with_treatment(wanted: str) -> list[str]:
    return [name for names, _, treatment in rows() for name in names if treatment == wanted]


def fixed_values() -> dict[str, str]:
    treatments = {names[0]: treatment for names, _, treatment in rows() if treatment.startswith("fixed: ")}
    return {name: treatment.removeprefix("fixed: ").strip("`") for name, treatment in treatments.items()}


def cleared_names() -> list[str]:
    """A name for each pattern, and every example."""
    cleared = [row for row in rows() if row[2] == "cleared"]
    patterns = [name.replace("*", "ANYTHING") for names, _, _ in cleared for name in names]
    return [*patterns, *(name for _, examples, _ in cleared for name in examples)]


def test_the_page_and_the_code_list_the_same_variables() -> None:
    assert sorted(names_with_treatment("cleared")) == sorted(CLEARED_PATTERNS)
    assert sorted(names_with_treatment("recorded")) == sorted(RECORDED)
    assert sorted(names_with_treatment("kept")) == sorted(ALLOWED)
    assert fixed_values() == {**FIXED, "PYTHONPATH": "the repository"}
    assert {treatment.partition(":")[0] for _, _, treatment in rows()} == {"cleared", "recorded", "kept", "fixed"}
    assert len(cleared_names()) > 120


PROBE = """
import json, os, subprocess, sys
from pathlib import Path
os.environ |= json.loads(sys.argv[1])
from corelib.workflow.catalogue import _prepare_environment
_prepare_environment(Path.cwd())  # as in the Snakefile
print(subprocess.run(["env", "-0"], capture_output=True, text=True).stdout)
"""


def test_a_process_that_the_snakefile_starts_has_the_variables_that_the_page_describes() -> None:
    kept, chosen = dict.fromkeys(names_with_treatment("kept"), "7"), dict.fromkeys(names_with_treatment("recorded"), "")
    users = dict.fromkeys([*cleared_names(), *fixed_values()], "user") | kept | chosen
    done = Checkout(REPOSITORY).python("-c", PROBE, json.dumps(users))
    assert done.returncode == 0, done.stdout
    found = dict(pair.split("=", 1) for pair in done.stdout.strip("\0\n").split("\0"))
    assert found.keys() & set(cleared_names()) == set()
    assert {name: found.get(name) for name in kept} == kept
    assert {name: found.get(name) for name in chosen} == chosen
    assert {name: found.get(name) for name in fixed_values()} == {**FIXED, "PYTHONPATH": str(REPOSITORY)}


@pytest.mark.parametrize("name", cleared_names())
def test_a_job_refuses_a_cleared_variable_that_is_set_again(name: str) -> None:
    prepare_environment(variables := {"PATH": "/bin"}, REPOSITORY)
    check_variables(variables)
    with pytest.raises(ConfigurationError, match=re.escape(f"{name} is 'here again', expected no such variable")):
        check_variables(variables | {name: "here again"})


@pytest.mark.parametrize("name", sorted(FIXED))
def test_a_job_refuses_another_value_of_a_fixed_variable(name: str) -> None:
    prepare_environment(variables := {name: "other"}, REPOSITORY)
    assert variables[name] == FIXED[name]
    with pytest.raises(ConfigurationError, match=f"{name} is 'other', expected {FIXED[name]}"):
        check_variables(variables | {name: "other"})


def test_a_job_accepts_kept_and_recorded_variables() -> None:
    users = dict.fromkeys([*names_with_treatment("kept"), *names_with_treatment("recorded")], "1")
    prepare_environment(variables := dict(users), REPOSITORY)
    check_variables(variables)
    assert variables.items() >= users.items()


def test_variables_that_the_user_may_set_are_recorded(tmp_path: Path) -> None:
    toy: Toy = toy_at(tmp_path)
    toy.variables = {
        name: "default" if name == "ATEN_CPU_CAPABILITY" else "" for name in names_with_treatment("recorded")
    }
    assert toy.run() == 0, toy.log
    record = json.loads((toy.folder / "manifest.provenance.json").read_text())
    assert record["arithmetic"].items() >= toy.variables.items()


def test_a_variable_that_a_start_up_file_sets_again_stops_the_job_with_one_sentence(tmp_path: Path) -> None:
    toy: Toy = toy_at(tmp_path)
    toy.set_again = {"OMP_DYNAMIC": "true"}
    assert toy.run() == 1
    assert "Error: environment: OMP_DYNAMIC is 'true', expected no such variable in a job" in toy.log
    assert "Traceback" not in toy.log and toy.files() == {"specification.json"}


TRAINING = """
import torch
torch.set_num_threads(2)
torch.nn.Conv2d(3, 32, 3)(torch.zeros(16, 3, 32, 32)).sum().backward()
"""


@pytest.mark.parametrize("variable", [{"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}], ids=str)
def test_a_limit_of_threads_in_the_users_shell_does_not_block_a_job(variable: dict[str, str], tmp_path: Path) -> None:
    toy: Toy = toy_at(tmp_path, meanwhile=TRAINING)
    toy.variables = variable
    assert toy.run() == 0, toy.log
