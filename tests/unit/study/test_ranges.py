"""Numbers that compute for hours and cannot be right are refused when a study is read, each in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.checkout import REPOSITORY

from corelib.errors import ConfigurationError
from corelib.study.loading import load_study
from corelib.study.ranges import RANGES, find_beyond_range
from corelib.study.schema import Study
from corelib.study.study_files import study_names

CONFIGURATION = REPOSITORY / "config"


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    shutil.copytree(CONFIGURATION, tmp_path / "config")
    return tmp_path / "config"


def load(configuration: Path, text: str, base: str = "paper") -> Study:
    (configuration / "studies/other.yaml").write_text(f"base: {base}\n{text}\n")
    return load_study("other", configuration)


REFUSED = [
    (
        "sampling: {scheduler: {steps: 5000}}",
        "sampling.scheduler.steps is 5000, expected a number from 1 to 1,000: the",
    ),
    (
        "sampling: {scheduler: {steps: 1000}}",
        "sampling.scheduler.steps_offset is 1, expected a smaller offset or fewer",
    ),
    ("sampling: {scheduler: {steps_offset: 900}}", "sampling would begin at timestep 1,890, and the last"),
    (
        "methods: {core: {learning_rate: 2e5}}",
        "methods.core.learning_rate is 200000.0, expected a number for which the",
    ),
    ("training: {scale: {learning_rate: 1e5}}", "(training.scale.learning_rate is 100000): Adam changes each weight"),
    ("sampling: {guidance_scale: 900.0}", "sampling.guidance_scale is 900.0, expected a number from 0 to 100: beyond"),
    ("sampling: {batch: 160000}", "sampling.batch is 160000, expected a number from 1 to 10,000: no device"),
    ("encoding: {batch: 80000}", "encoding.batch is 80000, expected"),
    ("classification: {batch: 320000}", "classification.batch is 320000, expected"),
    ("fid: {batch: 320000}", "fid.batch is 320000, expected"),
    ("methods: {core: {batch: 40000}}", "methods.core.batch is 40000, expected"),
    ("encoding: {resolution: 51200}", "encoding.resolution is 51200, expected a number from 8 to 4,096: the paper's"),
    ("sampling: {resolution: 51200}", "sampling.resolution is 51200, expected"),
    ("world: {assets: {classifier_resolution: 22400}}", "world.assets.classifier_resolution is 22400, expected"),
    ("figures: {figure2: {pixels: 1}}", "figures.figure2.pixels is 1, expected a number from 8 to 4,096"),
    (
        "training: {optimizer: {epsilon: 1e8}}",
        "training.optimizer.epsilon is 100000000.0, expected a number from 0 to 1",
    ),
    ("training: {scale: {min_steps: 100000000}}", "training.scale.min_steps is 100000000, expected"),
    ("methods: {core: {length: {Forget06: {epochs: 25e6}}}}", "at most 10,000,000 training steps; this one has"),
    (
        "methods: {esd: {length: {Forget06: {steps: 100000000}}}}",
        "methods.esd.length.Forget06.steps is 100000000, expected",
    ),
    (
        "methods: {core: {objective: {retain: {weight: 1e7}}}}",
        "methods.core.objective.retain.weight is 10000000.0, exp",
    ),
    (
        "methods: {core: {objective: {unlearn: {weight: -1e7}}}}",
        "methods.core.objective.unlearn.weight is -10000000.0, e",
    ),
    (
        "methods: {esd: {objective: {unlearn: {weight: 0.0}}}}",
        "weight is 0.0, expected another number, since there is no",
    ),
    (
        "methods: {esd: {objective: {unlearn: {target: {eta: 1000.0}}}}}",
        "target.eta is 1000.0, expected a number from -100",
    ),
    (
        "methods: {ediff: {objective: {unlearn: {target: {high: 1e3}}}}}",
        "target.high is 1000.0, expected a number from",
    ),
    (
        "methods: {salun: {saliency: {guidance_scale: 850.0}}}",
        "methods.salun.saliency.guidance_scale is 850.0, expected",
    ),
    (
        "methods: {esd_released: {objective: {unlearn: {images: {steps: 5000}}}}}",
        "images.steps is 5000, expected a number",
    ),
    ("methods: {esd_released: {objective: {unlearn: {images: {steps_offset: 990}}}}}", "would begin at timestep 1,970"),
    ("threads: {sampling: 100000}", "threads.sampling is 100000, expected a number from 1 to 1,024: no machine"),
    ("world: {images_per_cell: 20000000}", "world.images_per_cell is 20000000, expected"),
]

REFUSED_OF_THE_MINIATURE = [
    (
        "world: {denoiser: {training: {learning_rate: 2.0}}}",
        "world.denoiser.training.learning_rate is 2.0, expected a num",
    ),
    ("world: {classifier: {training: {steps: 100000000}}}", "world.classifier.training.steps is 100000000, expected"),
    ("world: {autoencoder: {training: {batch: 160000}}}", "world.autoencoder.training.batch is 160000, expected"),
    ("world: {autoencoder: {channels: [16, 32000, 32]}}", "world.autoencoder.channels.1 is 32000, expected"),
    ("world: {text_encoder: {layers: 2000}}", "world.text_encoder.layers is 2000, expected a number from 1 to 200"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_number_that_cannot_be_right_is_refused_in_one_sentence(text: str, message: str, configuration: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(configuration, text)
    sentence = str(caught.value)
    assert sentence.startswith(f"{configuration / 'studies/other.yaml'}: ") or "config.yaml: " in sentence
    assert message in sentence and "\n" not in sentence and sentence.endswith(".")


@pytest.mark.parametrize(("text", "message"), REFUSED_OF_THE_MINIATURE)
def test_a_number_of_the_miniature_that_cannot_be_right_is_refused(
    text: str, message: str, configuration: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(configuration, text, "mini-from-scratch")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "sampling: {scheduler: {steps: 1000, steps_offset: 0}, guidance_scale: 30.0}",
        "sampling: {scheduler: {steps: 999, timestep_spacing: trailing}, batch: 512}",
        "methods: {core: {learning_rate: 0.01, batch: 256, length: {Forget25: {epochs: 1000}}}}",
        "methods: {core: {objective: {unlearn: {weight: 0.0}}}}",
        "training: {optimizer: {epsilon: 0.1, weight_decay: 0.1}}\n"
        "methods: {salun: {saliency: null}, salun_released: {saliency: null}}",
        "sampling: {resolution: 1024}\nencoding: {resolution: 1024}",
    ],
)
def test_unusual_numbers_that_a_study_may_have_are_accepted(text: str, configuration: Path) -> None:
    load(configuration, text)


@pytest.mark.parametrize("name", study_names(CONFIGURATION))
def test_every_study_of_this_repository_is_far_within_all_ranges(name: str) -> None:
    assert not list(find_beyond_range(load_study(name, CONFIGURATION)))


def test_every_range_is_that_of_a_leaf_that_a_study_can_have() -> None:
    def keys(section: object, prefix: str = "") -> set[str]:
        entries = (
            section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ()
        )
        return {prefix} | {key for name, entry in entries for key in keys(entry, f"{prefix}.{name}".lstrip("."))}

    known = {key for name in ("paper", "mini") for key in keys(load_study(name, CONFIGURATION).model_dump())}
    known |= {"methods.x.objective.unlearn.weight.scale", "methods.x.objective.unlearn.weight.gamma"}
    known |= {f"probes.x.{leaf}" for leaf in ("steps.0", "learning_rate", "tokens", "batch")}
    assert [limits.keys for limits in RANGES if not any(map(limits.covers, known))] == []


def test_a_number_out_of_range_and_an_unknown_name_are_reported_together() -> None:
    text = (
        "base: mini\ntasks: {Forget06: {evaluation: {retain: [Teal_Dotz]}}}\n"
        "methods: {core: {learning_rate: 2e5, batch: 20000}}\nsampling: {guidance_scale: 1000}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        load_study("mine", CONFIGURATION, text)
    parts = str(caught.value).removeprefix(f"{CONFIGURATION}/studies/mine.yaml: ").split("; ")
    assert [part.partition(" is ")[0] for part in parts] == [
        "tasks.Forget06.evaluation.retain",
        "methods.core.batch",
        "sampling.guidance_scale",
        "methods.core.learning_rate",
    ], parts
