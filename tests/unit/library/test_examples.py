"""The scripts and the notebook in `examples/` run, in the order of their cells, and show what they promise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from support.checkout import REPOSITORY

from corelib.library import read_delta

EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "choose_an_anchor.ipynb"


def run(*arguments: str | Path) -> str:
    """Run Python in the folder of the examples and return its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def as_script(folder: Path, **replaced: str) -> Path:
    """The code cells of the notebook as one script, with some texts replaced."""
    code = "\n\n".join(code_cells())
    for old, new in replaced.items():
        assert old in code
        code = code.replace(old, new)
    script = folder / "notebook.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n{code}\n")
    return script


def test_a_style_is_unlearned_saved_and_drawn(tmp_path: Path) -> None:
    output = run("unlearn_a_style.py", tmp_path, "--steps", "20")
    first, last = re.search(r"loss ([\d.]+) -> ([\d.]+)", output).groups()  # type: ignore[union-attr]
    assert float(last) < float(first)
    assert read_delta(tmp_path / "delta.safetensors").trained == "cross_attention"
    assert Image.open(tmp_path / "before_and_after.png").size == (6 * 64, 4 * 64)


def test_methods_are_compared() -> None:
    lines = run("compare_methods.py", "esd", "--steps", "2").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["original", "esd"]
    assert all(re.search(r"UA +[\d.]+ \([\d.]+ to [\d.]+\) .* distance [\d.]+$", line) for line in lines[1:])


def test_the_cells_of_the_notebook_run_in_their_order(tmp_path: Path) -> None:
    output = run(as_script(tmp_path, **{", 100\n": ", 2\n"}))
    assert re.findall(r"^(.+): loss", output, re.MULTILINE) == ["Amber_Dots", "Cobalt_Waves", "empty prompt"]
    assert re.findall(r"'UA': '\d+ of (\d+)', 'IRA': '\d+ of (\d+)', 'CRA'", output) == [("6", "18")] * 3


def test_the_ten_lines_of_the_page_run(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs/library.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]  # type: ignore[index]
    assert len([line for line in code.splitlines() if line]) <= 10
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (40, 32), (ord(name[0]), 50, 90)).save(tmp_path / name)
    for old, new in {
        "path/to/a/model": str(REPOSITORY / "config/pretrained/pipeline"),
        '.to("cuda")': "",
        "steps=500": "steps=1",
        "a cat in Van Gogh style": "A Circles image in Sky Waves style.",
        "a dog in Monet style": "A Hearts image in Teal Stripes style.",
        '"a cat"': '"A Circles image in Amber Dots style."',
    }.items():
        assert old in code
        code = code.replace(old, new)
    (tmp_path / "page.py").write_text(f"import os\nos.chdir({str(tmp_path)!r})\n{code}")
    run(tmp_path / "page.py")
    assert read_delta(tmp_path / "delta.safetensors").trained == "cross_attention"


def test_the_notebook_stores_no_output() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_the_examples_unlearn_the_style_and_keep_the_others(tmp_path: Path) -> None:
    """At their own number of steps, every method and every anchor forgets the style."""
    lines = run("compare_methods.py").splitlines()[1:]
    accuracies = {line.split()[0]: [float(value) for value in re.findall(r"A +([\d.]+) \(", line)] for line in lines}
    assert accuracies["original"][0] == 0
    assert all(accuracies[method][0] == 100 for method in ("core", "esd"))
    assert accuracies["core"][1] > accuracies["esd"][1]
    counted = re.findall(r"'UA': '(\d+) of 6', 'IRA': '(\d+) of 18'", run(as_script(tmp_path)))
    assert len(counted) == 3 and all(int(forgotten) >= 5 and int(kept) >= 12 for forgotten, kept in counted)
