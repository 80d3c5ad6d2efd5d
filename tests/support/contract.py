"""The contract in the tables of docs/reruns.md, compared with Snakemake's dry runs of the same changes.

Nothing is computed here. The tests make a working directory look complete, change one thing, and compare what a dry run
would build.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.checkout import REPOSITORY, Checkout
from support.records import manifest_record, provenance

from corelib.errors import ConfigurationError
from corelib.files.json_files import to_json
from corelib.files.yaml_files import parse_yaml, read_yaml
from corelib.runs.layout import RESULTS, RUNS, SHARDS
from corelib.runs.run import Run
from corelib.runs.stage_registry import PRODUCTS
from corelib.sampling.grid import split_into_batches
from corelib.settings.sampling import SamplesStage
from corelib.study.loading import load_plan, load_study
from corelib.study.overlays import merge_study
from corelib.study.plan import Plan
from corelib.study.schema import Study
from corelib.study.targets import SUMMARIES, product_of, targets_of
from corelib.study.worlds import PIPELINE_PARTS

PAGE = REPOSITORY / "docs/reruns.md"
NOTHING, REFUSED = "nothing", "refused"


PLACES = {
    "images": "assets/UnlearnCanvas",
    "pipeline": "assets/UnlearnCanvas-ckpts/diffusion/diffuser/style50",
    "compvis": "assets/compvis.ckpt",
    "style_classifier": "assets/UnlearnCanvas-ckpts/cls_model/style50.pth",
    "object_classifier": "assets/UnlearnCanvas-ckpts/cls_model/style50_cls.pth",
    "inception": "assets/inception-2015-12-05.pt",
    "inception_torchvision": "assets/inception_v3_google-0cc3c7bd.pth",
    "model": "given/unet",
    "clip": "assets/clip",
}
"""Paths of the assets of the paper's world, and of models of the user's. The lock lists each there and in
`elsewhere/`."""


def paper_overlay() -> str:
    """An overlay of the paper's study with the released baselines, those without an objective, a model of the user's,
    and methods that use the remaining kinds of targets and weights, so that some run reads every possible leaf.
    """
    core = read_yaml(REPOSITORY / "config/config.yaml")["methods"]["core"]
    retain: dict[str, dict[str, Any]] = {
        "live_retain": {"kind": "current_model", "prompt": "own", "gradient": "detached", "posterior": "shared"},
        "uniform_retain": {"kind": "uniform_noise", "low": 0.0, "high": 1.0},
    }
    methods = {name: copy.deepcopy(core) for name in retain}
    for name, target in retain.items():
        methods[name] |= {"title": name}
        methods[name]["objective"]["retain"]["target"] = target
    methods["uniform_retain"]["seeds"] = None
    methods["live_retain"]["objective"]["unlearn"]["weight"] = {"kind": "min_snr", "scale": 1.0, "gamma": 5.0}
    released = ["ediff_released", "ca_released", "salun_released", "esd_released"]
    rows = ["original", "ediff", "ca_model", "ca_noise", "salun", "esd", *released, "core"]
    tables = {
        "table1": {"rows": rows},
        "table5": {"tasks": ["Forget01", "Forget06"], "rows": [*retain], "published": "table2"},
        "table6": {"tasks": ["Forget01"], "rows": ["core", "given"], "published": None},
        "table7": {"tasks": ["Forget06"], "rows": ["core", "uce", "rece", "relabelled"], "published": None},
    }
    models = {"given": {"title": "Given", "weights": {"Forget01": PLACES["model"]}}}
    return json.dumps({"methods": methods, "models": models, "tables": tables, "probes": probes()})


def probes() -> dict[str, Any]:
    """A probe of each kind, with a value for every leaf."""
    images = {"tasks": ["Forget01"], "rows": ["original", "core"], "objects": ["Bears", "Birds"], "seeds": [188, 588]}
    training = {"steps": [5], "learning_rate": 1.0e-4, "batch": 4}
    other = {"template": None, "names": {"Van_Gogh": "swirling strokes"}, "misspelt": False}
    return {
        "probe_wording": {"kind": "wording", **images, "wordings": {"other": other}},
        "probe_partial": {"kind": "partial_diffusion", **images, "levels": [0.5], "images": [1]},
        "probe_relearning": {"kind": "relearning", **images, **training, "images": [1], "trained": "cross_attention"},
        "probe_inversion": {"kind": "inversion", **images, **training, "images": 1, "start": "name"},
        "probe_prefix": {"kind": "prefix", **images, **training, "images": 1, "tokens": 5},
        "probe_neighbours": {"kind": "neighbours", **images, "alike": {"Van_Gogh": ["Crayon"]}},
    }


def miniatures_overlay() -> str:
    """An overlay of the miniature with retrained models, a task after another one, and a sequence."""
    retain, objects = ["Cobalt_Waves", "Crimson_Checks", "Olive_Stripes", "Rose_Waves", "Teal_Stripes"], ["Arrows"]
    evaluation = {"retain": retain, "objects": objects, "seeds": [188]}
    tasks: dict[str, Any] = {
        "Forget01": {"evaluation": evaluation},
        "Later": {"forget": ["Amber_Checks"], "after": "Forget01", "evaluation": evaluation},
        "Second": {"forget": ["Amber_Dots"], "after": "Forget01", "evaluation": evaluation},
        "Both": {"forget": ["Amber_Dots", "Sky_Waves"], "evaluation": evaluation},
    }
    core = {"length": {"default": {"epochs": 25}}, "anchors": {"default": "one_to_one"}}
    table = {"tasks": ["Forget01", "Later"], "rows": ["core", "retrained"], "published": None}
    sequence = {"tasks": ["Forget01", "Second"], "at_once": ["Forget01", "Both"], "rows": ["core"]}
    return json.dumps(
        {
            "base": "mini-from-scratch",
            "tasks": tasks,
            "methods": {"core": core},
            "tables": {"table5": table},
            "sequences": {"sequence1": sequence},
        }
    )


ONLY_MINIATURE = (("baselines", "retrained"), ("distances",), ("sequences",), ("tasks", "Later", "after"))
"""Sections whose leaves only the study of the miniature reads."""

OWN = json.dumps(
    {
        "base": "own",
        "world": {
            "concepts": ["cat", "dog", "horse"],
            "classes": {"concept": ["cat", "dog", "horse", "wolf"]},
            "assets": {name: PLACES[name] for name in ("images", "pipeline", "clip", "inception")},
        },
        "prompts": {"names": {"cat": "tabby"}, "evaluation": {name: [name] for name in ("cat", "dog", "horse")}},
        "tasks": {"NoCat": {"forget": ["cat"], "evaluation": {"retain": ["dog", "horse"], "seeds": [0]}}},
        "tables": {"table1": {"tasks": ["NoCat"], "rows": ["original", "core", "esd"]}},
    }
)

STUDIES = {
    "leaf": ("papers", paper_overlay()),
    "leaf of the miniature": ("miniatures", miniatures_overlay()),
    "leaf of own images": ("owns", OWN),
}
"""The study with which the rows of each kind of table are tested."""

SHARED_STAGES = ("embeddings", "samples", "predictions")
"""Stages of which a probe has runs of its own, besides those of tables and figures."""

LOCKED = [name for name in PLACES if name != "pipeline"]
LOCKED += [f"pipeline/{part}" for part in ("unet", "unet_ema", *PIPELINE_PARTS)]

PRODUCT_FILES = {stage: tuple(f".{ending}" for ending in product.endings) for stage, product in PRODUCTS.items()}

Key = tuple[str, ...]


# The page


@dataclass(frozen=True)
class Promise:
    """A row of a table about leaves.

    Attributes:
        pattern: the leaf, with METHOD, TASK, TABLE, FIGURE, PROBE and SEQUENCE as placeholders.
        change: the new value, as the page writes it.
        readers: the stages that read it, as the page writes them.
    """

    pattern: str
    change: str
    readers: str

    def is_about(self, key: Key) -> bool:
        """Whether the row is about a leaf."""
        parts = self.pattern.split(".")
        return len(parts) == len(key) and all(
            part.isupper() or part == own for part, own in zip(parts, key, strict=True)
        )


def names_in(key: Key) -> dict[str, str]:
    """The values of METHOD, TASK, TABLE, FIGURE, PROBE and SEQUENCE in a leaf."""
    named = {
        "tasks": ("TASK",),
        "methods": ("METHOD", "", "TASK"),
        "baselines": ("METHOD", "", "TASK"),
        "models": ("METHOD", "", "TASK"),
        "tables": ("TABLE",),
        "figures": ("FIGURE",),
        "probes": ("PROBE",),
        "sequences": ("SEQUENCE",),
    }
    return dict(zip(named.get(key[0], ()), key[1:], strict=False))


def tables_of_page() -> dict[str, list[list[str]]]:
    """All tables of the page, by the head of the first column; tables with the same head are joined."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] | None = None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            rows = None
        elif rows is None:
            head, *_ = cells_of(line)
            rows = found.setdefault(head, [])
        elif not line.startswith("| ---"):
            rows.append(cells_of(line))
    return found


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def promises(head: str) -> list[Promise]:
    """The rows about leaves under one head; rows for particular names come before rows with placeholders."""
    rows = [Promise(leaf.strip("` "), change, readers) for leaf, change, readers in tables_of_page()[head]]
    return sorted(rows, key=lambda row: sum(part.isupper() for part in row.pattern.split(".")))


# Leaves


def leaves_of(section: Mapping[str, Any], key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every leaf of a merged configuration; a list is one leaf."""
    for name, value in section.items():
        if isinstance(value, dict):
            yield from leaves_of(value, (*key, name))
        else:
            yield (*key, name), value


@dataclass(frozen=True)
class Case:
    """One leaf with the change in its row.

    Attributes:
        key: the leaf.
        promise: its row.
        overlay: the study that changes it and nothing else.
    """

    key: Key
    promise: Promise
    overlay: dict[str, Any]

    @property
    def is_refused(self) -> bool:
        """Whether the study must be refused with an error."""
        return self.promise.readers == REFUSED


def cases_of(head: str, leaves: Iterable[tuple[Key, Any]]) -> list[Case]:
    """A case for every leaf. Raises `AssertionError` if the page lacks a leaf."""
    rows = promises(head)
    cases = []
    for key, value in leaves:
        promise = next((row for row in rows if row.is_about(key)), None)
        assert promise is not None, f"docs/reruns.md says nothing of the leaf {'.'.join(key)}"
        cases.append(Case(key, promise, overlay_of(key, value, promise.change)))
    return cases


def overlay_of(key: Key, value: Any, change: str) -> dict[str, Any]:
    """The overlay of a study that changes one leaf, or the section that contains it."""
    text = change.strip("`")
    if change == "a mapping":
        changed: Any = reordered_anchors()
    elif change.endswith(", and no masks"):  # weight decay would change masked weights: a study with both is refused
        changed, masked = parse_yaml(change.split("`")[1]), ("salun", "salun_released")
        return {"training": {"optimizer": {key[-1]: changed}}, "methods": {name: {"saliency": None} for name in masked}}
    elif change == "in reverse":
        changed = list(reversed(value))
    elif text.startswith(".. "):
        key, changed = key[:-1], parse_yaml(text.removeprefix(".. "))
    else:
        changed = parse_yaml(text)
    if isinstance(changed, list) and "..." in changed:
        changed = [*value, *changed[1:]]
    for name in reversed(key):
        changed = {name: changed}
    overlay: dict[str, Any] = changed
    return overlay


def reordered_anchors() -> dict[str, str]:
    """An anchor for every forget style of the paper's study, in a different order, and distinct in each task."""
    study = load_study("paper", REPOSITORY / "config")
    forget = list(dict.fromkeys(style for task in study.tasks.values() for style in task.forget))
    others = [style for style in reversed(study.world.styles) if style not in {*forget, study.prompts.photo_style}]
    return dict(zip(forget, [*others, *reversed(forget)], strict=False))


# Runs


@dataclass(frozen=True)
class PlannedStudy:
    """The planned runs of a study, without products over whatever is built."""

    study: Study
    products: Mapping[str, Run]

    @classmethod
    def of(cls, name: str, configuration: Path) -> PlannedStudy:
        plan: Plan = load_plan(name, configuration)
        return cls(plan.study, {product: run for product, run in plan.products().items() if product not in SUMMARIES})

    @functools.cached_property
    def runs(self) -> dict[str, Run]:
        return {name: run for product in self.products.values() for name, run in product.with_all_inputs().items()}

    def readers(self, written: str, names: Mapping[str, str]) -> set[str]:
        """The runs to which stages in a row refer, such as `unlearning` of METHOD in TASK."""
        if written == NOTHING:
            return set()
        found: set[str] = set()
        for term in written.split(", "):
            stage, *words = [word.strip("`") for word in term.split() if word not in ("of", "in", "that", "name")]
            words = [names.get(word, word).lower() for word in words]
            if stage == "products":
                found |= {run.name for name, run in self.products.items() if self._shows(name, names["METHOD"])}
            else:
                found |= {run.name for run in self.runs.values() if run.stage == stage and self._is_of(run, words)}
        return found

    def _is_of(self, run: Run, words: Sequence[str]) -> bool:
        """Whether a run's name contains all words. If one task's name begins with another's, the longer one counts."""
        slug = f"-{run.slug}-"
        tasks = sorted((task.lower() for task in self.study.tasks if f"-{task.lower()}-" in slug), key=len)
        parts = {*run.slug.split("-"), *tasks[-1:]} - set(tasks[:-1])
        hidden = set(tasks[-1].split("-")) - {tasks[-1]} if tasks else set()
        if "anchors" in parts and "anchors" not in words:  # images on which a method trains, not those of a model
            return not words
        probe = parts & self.study.probes.keys()
        if probe and run.stage in SHARED_STAGES and not {"probes", *probe} & set(words):
            return not words
        return all(word in parts - hidden or (word == "probes" and probe) for word in words)

    def _shows(self, product: str, method: str) -> bool:
        """Whether a table or figure shows a method under the method's own title."""
        if product == "gate":
            return False
        table = product.replace("charts", "table").replace("distances", "table")
        if table in self.study.tables:
            rows = self.study.tables[table].rows
        elif product in self.study.probes:
            rows = self.study.probes[product].rows
        elif product in self.study.sequences:
            rows = self.study.sequences[product].rows
        else:
            rows = self.study.figures[product].columns
        return any(row.method == method and row.title is None for row in self.study.rows_of(rows))

    def built_on(self, chosen: set[str]) -> set[str]:
        """These runs and all runs that build on them."""

        @functools.cache
        def builds(name: str) -> bool:
            return name in chosen or any(builds(below.name) for below in self.runs[name].inputs.values())

        return {name for name in self.runs if builds(name)}


# A working directory that looks complete


class FakeBuild(Checkout):
    """A checkout in which all runs of some studies look complete."""

    @property
    def configuration(self) -> Path:
        return self.folder / "config"

    def add_study(self, name: str, text: str) -> None:
        (self.configuration / "studies" / f"{name}.yaml").write_text(text)

    def make_complete(self, study: str) -> PlannedStudy:
        """Make all runs and products of a study look complete."""
        planned = PlannedStudy.of(study, self.configuration)
        for run in planned.runs.values():
            if run.stage not in PRODUCTS:
                _write(self.folder / run.manifest, _manifest_of(run))
            if isinstance(run.settings, SamplesStage):
                shards = math.ceil(len(split_into_batches(run.settings)) / run.execution.batches_per_shard)
                for shard in range(shards):
                    name = f"{shard:04d}-of-{shards:04d}.json"
                    _write(self.folder / run.folder / SHARDS / name, _manifest_of(run))
        self.publish(study, planned)
        return planned

    def publish(self, place: str, planned: PlannedStudy) -> None:
        """Make the tables and figures of a study look complete in the folder of another study."""
        for name, run in planned.products.items():
            for ending in PRODUCT_FILES[run.stage]:
                _write(self.folder / RESULTS / place / f"{name}{ending}")
            manifest = _manifest_of(run)
            record = to_json(provenance(run.specification, manifest_record(run.specification)).content)
            _write(self.folder / RESULTS / place / f"{name}.json", manifest)
            _write(self.folder / RESULTS / place / f"{name}.provenance.json", record)

    def lock(self, other: str | None = None) -> None:
        """Write a lock of all assets, in which the asset `other` has a different sha256."""
        assets = {}
        for name in LOCKED:
            asset, *part = name.split("/")
            sha256 = hashlib.sha256(f"{name}{' changed' if name == other else ''}".encode()).hexdigest()
            for place in (PLACES[asset], f"elsewhere/{asset}"):
                entry = {"sha256": sha256, "bytes": 1, "files": {}, "source": "the test"}
                assets["/".join([place, *part])] = entry
        (self.configuration / "assets.lock.json").write_text(json.dumps({"revisions": {}, "assets": assets}))

    def would_build(self, studies: Mapping[str, Study], packages: Path | None = None) -> set[str]:
        """The runs for which a dry run lists a job, as `STAGE/NAME`, and products as `results/STUDY/NAME`.

        Args:
            studies: the studies whose products are requested.
            packages: a folder of packages that are found before those of the environment.
        """
        targets = [
            target
            for name, study in studies.items()
            for target in targets_of(name, study)
            if product_of(Path(target)) not in SUMMARIES
        ]
        before = [f"import sys; sys.path.insert(0, {str(packages)!r})"] if packages else []
        program = "; ".join([*before, "from snakemake.cli import main", "main()"])
        done = self.python("-c", program, "--dry-run", *targets, timeout=600)
        assert done.returncode == 0, done.stdout[-3000:]
        found = set()
        for line in re.findall(r"^    output: (.+)$", done.stdout, re.MULTILINE):
            for path in line.split(", "):
                parts = Path(path).parts
                is_run = parts[0] == RUNS.name
                found.add("/".join(parts[1:3]) if is_run else str(Path(path).parent / product_of(Path(path))))
        return found


def _manifest_of(run: Run) -> str:
    """A manifest that lists no files."""
    return to_json(manifest_record(run.specification).content)


def _write(path: Path, text: str = "{}") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def with_target_paths(names: Iterable[str], planned: PlannedStudy, study: str) -> set[str]:
    """Replace the names of products by the paths of their targets."""
    products = {run.name: f"{RESULTS}/{study}/{name}" for name, run in planned.products.items()}
    return {products.get(name, name) for name in names}


def differences(case: Case, wanted: set[str], found: set[str]) -> str:
    """The differences between promised and actual runs of a leaf, in words; empty if there are none."""
    parts = []
    if unnoticed := sorted(wanted - found):
        parts.append(f"is not built anew, though it should be: {_some(unnoticed)}")
    if needless := sorted(found - wanted):
        parts.append(f"is built anew, though it should not be: {_some(needless)}")
    return f"{'.'.join(case.key)}: {'; '.join(parts)}" if parts else ""


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def check_leaves(checkout: FakeBuild, base: str, complete: PlannedStudy, cases: Sequence[Case]) -> list[str]:
    """Change each leaf of some cases in a separate study, make one dry run of all these studies, and compare.

    Jobs of complete runs do not count, because they find the result and end.
    """
    planned_studies: dict[str, tuple[Case, PlannedStudy]] = {}
    for number, case in enumerate(cases):
        name = f"{base}-{number}"
        checkout.add_study(name, json.dumps({"base": base, **copy.deepcopy(case.overlay)}))
        planned_studies[name] = case, PlannedStudy.of(name, checkout.configuration)
        checkout.publish(name, complete)
    found = checkout.would_build({name: planned.study for name, (_, planned) in planned_studies.items()})
    faults, known = [], set()
    for name, (case, planned) in planned_studies.items():
        built = planned.built_on(planned.readers(case.promise.readers, names_in(case.key)))
        everything = with_target_paths(planned.runs, planned, name)
        known |= everything
        if fault := differences(
            case, with_target_paths(built, planned, name), (found & everything) - complete.runs.keys()
        ):
            faults.append(fault)
        (checkout.configuration / "studies" / f"{name}.yaml").unlink()
    assert found <= known, f"jobs of no study: {_some(sorted(found - known))}"
    return faults


def prepare_checkout(folder: Path, head: str) -> tuple[FakeBuild, PlannedStudy, list[tuple[Key, Any]]]:
    """A checkout in which the study for one kind of table looks complete, its runs, and the leaves to test."""
    checkout = FakeBuild(Checkout.at(folder).folder)
    study, text = STUDIES[head]
    checkout.add_study(study, text)
    checkout.lock()
    merged, _ = merge_study(study, checkout.configuration, ())
    leaves = list(leaves_of(merged))
    if head != "leaf":  # leaves that both worlds have are tested in the paper's study
        leaves = [
            (key, value)
            for key, value in leaves
            if key[0] in ("world", "prompts")
            or key == ("threads", "world")
            or (is_only_of_miniature(key) and head == "leaf of the miniature")
        ]
    else:
        leaves = [(key, value) for key, value in leaves if not is_only_of_miniature(key)]
    return checkout, checkout.make_complete(study), leaves


def is_only_of_miniature(key: Key) -> bool:
    """Whether only a study of the miniature can read a leaf."""
    return any(key[: len(section)] == section for section in ONLY_MINIATURE)


def check(folder: Path, head: str, cases: Sequence[Case] | None = None, at_once: int = 30) -> list[str]:
    """All differences between Snakemake and the page, for some leaves or all, in words."""
    checkout, complete, leaves = prepare_checkout(folder, head)
    chosen = cases_of(head, leaves) if cases is None else list(cases)
    study, _ = STUDIES[head]
    faults = [fault for case in chosen if case.is_refused for fault in faults_of_accepted_study(checkout, study, case)]
    valid = [case for case in chosen if not case.is_refused]
    for start in range(0, len(valid), at_once):
        faults += check_leaves(checkout, study, complete, valid[start : start + at_once])
    return faults


def faults_of_accepted_study(checkout: FakeBuild, study: str, case: Case) -> Iterator[str]:
    """A fault for a study that is accepted although it must be refused."""
    checkout.add_study("refused", json.dumps({"base": study, **case.overlay}))
    try:
        PlannedStudy.of("refused", checkout.configuration)
    except ConfigurationError:
        return
    yield f"{'.'.join(case.key)}: is accepted, though it should be refused"


def one_of_each_row(cases: Iterable[Case]) -> list[Case]:
    """The last case of each row."""
    return list({case.promise: case for case in cases}.values())
