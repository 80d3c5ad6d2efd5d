"""The registry of stages: a row for each kind of run.

To add a stage, write its settings (`corelib.settings`), a function `stage(settings, context)`, a rule with its
script, and a row here (docs/stages.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from corelib.errors import ArtefactError
from corelib.runs.layout import RUNS
from corelib.runs.specification import Specification
from corelib.settings.assets import AdoptionStage, ConversionStage
from corelib.settings.claims import ClaimsStage
from corelib.settings.data import EmbeddingsStage, LatentsStage, SliceStage
from corelib.settings.distances import ComparisonStage, DistancesStage
from corelib.settings.edits import EditStage
from corelib.settings.evaluation import CellsStage, FIDStage, PredictionsStage, ReferenceStage
from corelib.settings.gate import GateStage
from corelib.settings.given_models import GivenModelStage
from corelib.settings.miniature import AutoencoderStage, ClassifierStage, PipelineStage, RenderingStage
from corelib.settings.pretrained import PretrainedStage
from corelib.settings.probe_report import ProbeStage
from corelib.settings.probes import InversionStage, PrefixStage, RelearningStage, ResampledStage
from corelib.settings.reports import ChartsStage, FigureStage, TableStage
from corelib.settings.retraining import RetrainingStage
from corelib.settings.sampling import SamplesStage
from corelib.settings.section import Section
from corelib.settings.sequence_report import SequenceStage
from corelib.settings.study_report import ReportStage
from corelib.settings.unlearning import SaliencyStage, UnlearningStage


@dataclass(frozen=True)
class Product:
    """A kind of result with a stable name in `results/`.

    Attributes:
        names: pattern of the names of such products; the name itself if a study has one such product.
        endings: endings of its files; the first is that of the target, and its manifest ends in `json`.
        is_summary: whether it is made of everything that is built; it is planned after the other products.
    """

    names: str
    endings: tuple[str, ...]
    is_summary: bool = False


@dataclass(frozen=True)
class Stage:
    """A kind of run.

    Attributes:
        rule: the rule that writes the run's manifest.
        script: script of that rule, below `workflow_scripts/`.
        settings: type of the settings that its function reads.
        runs_on: a node with a GPU, a node without one, or the machine of Snakemake itself (`localrule`).
        memory_mb: memory that a job requests with the paper's models, in MB.
        shards: rule and script of its shards, if its work is divided into several jobs.
        trains_model: whether its result is a model trained here. If it is trained again at the same address, for
            example on another device, it is another model, and results of the old one do not belong to it.
        waits_for_gate: whether its jobs start only after the base model has passed the gate.
        product: the product that it makes, if its result has a stable name; its folder below `runs/` then contains only
            a specification.
    """

    rule: str
    script: str
    settings: type[Section]
    runs_on: Literal["gpu", "cpu", "snakemake"]
    memory_mb: int = 4_000
    shards: tuple[str, str] | None = None
    trains_model: bool = False
    waits_for_gate: bool = False
    product: Product | None = None

    @property
    def scripts(self) -> tuple[str, ...]:
        """All scripts; their import closure is the code of the stage."""
        return (self.shards[1], self.script) if self.shards else (self.script,)


CHARTS = ("tradeoff", "values", "styles", "confusion", "losses")
"""The charts of a table."""

TABLE = Product(
    r"table\w+", ("csv", "md", "tex", "cells.csv", "pairs.csv", "styles.csv", "confusion.csv", "provenance.csv")
)

STAGES: Mapping[str, Stage] = {
    # The world
    "assets": Stage("adopt_assets", "adopt_assets.py", AdoptionStage, "snakemake"),
    "conversion": Stage("convert_compvis", "convert_compvis.py", ConversionStage, "cpu", 32_000),
    "images": Stage("render_images", "render.py", RenderingStage, "cpu"),
    "pretrained": Stage("adopt_pretrained", "adopt_pretrained.py", PretrainedStage, "snakemake"),
    "autoencoder": Stage("train_autoencoder", "train_autoencoder.py", AutoencoderStage, "gpu", trains_model=True),
    "pipeline": Stage("train_pipeline", "train_pipeline.py", PipelineStage, "gpu", trains_model=True),
    "classifier": Stage("train_classifier", "train_classifier.py", ClassifierStage, "gpu", trains_model=True),
    # Data
    "slices": Stage("slice_images", "slice.py", SliceStage, "cpu"),
    "latents": Stage("encode_images", "encode.py", LatentsStage, "gpu", 16_000),
    "embeddings": Stage("embed_prompts", "embed.py", EmbeddingsStage, "gpu", 8_000),
    # Unlearning
    "saliency": Stage("find_salient_weights", "find_salient.py", SaliencyStage, "gpu", 32_000, waits_for_gate=True),
    "generated": Stage("encode_generated", "encode_generated.py", LatentsStage, "gpu", 16_000),
    "unlearning": Stage(
        "unlearn", "unlearn.py", UnlearningStage, "gpu", 32_000, trains_model=True, waits_for_gate=True
    ),
    "models": Stage("adopt_model", "adopt_model.py", GivenModelStage, "cpu", 16_000, waits_for_gate=True),
    "edits": Stage("edit_model", "edit_model.py", EditStage, "cpu", 16_000, trains_model=True, waits_for_gate=True),
    "retrained": Stage("retrain_pipeline", "retrain_pipeline.py", RetrainingStage, "gpu", trains_model=True),
    # Sampling
    "samples": Stage("gather_samples", "gather.py", SamplesStage, "gpu", 32_000, shards=("sample_shard", "sample.py")),
    # Probes
    "relearning": Stage("relearn", "relearn.py", RelearningStage, "gpu", 32_000, trains_model=True),
    "inversion": Stage("invert_concepts", "invert.py", InversionStage, "gpu", 32_000, trains_model=True),
    "prefixes": Stage("find_prefixes", "find_prefixes.py", PrefixStage, "gpu", 32_000, trains_model=True),
    "resampled": Stage("resample", "resample.py", ResampledStage, "gpu", 32_000),
    # Evaluation
    "predictions": Stage("classify_images", "classify.py", PredictionsStage, "gpu", 16_000),
    "reference": Stage("summarize_reference", "summarize_reference.py", ReferenceStage, "gpu", 16_000),
    "fid": Stage("measure_fid", "measure_fid.py", FIDStage, "gpu", 16_000),
    "cells": Stage("count_cells", "count.py", CellsStage, "snakemake"),
    "distances": Stage("measure_distances", "measure_distances.py", DistancesStage, "gpu", 16_000),
    "gate": Stage("check_gate", "check_gate.py", GateStage, "snakemake"),
    # Reports
    "tables": Stage("tabulate", "tabulate.py", TableStage, "snakemake", product=TABLE),
    "charts": Stage(
        "draw_charts",
        "draw_charts.py",
        ChartsStage,
        "snakemake",
        product=Product(r"charts\w+", tuple(f"{chart}.{kind}" for chart in CHARTS for kind in ("png", "pdf"))),
    ),
    "comparisons": Stage(
        "compare", "compare.py", ComparisonStage, "snakemake", product=Product(r"distances\w+", ("md", "csv"))
    ),
    "figures": Stage("draw", "draw.py", FigureStage, "snakemake", product=Product(r"figure\w+", ("png",))),
    "probes": Stage(
        "report_probe",
        "report_probe.py",
        ProbeStage,
        "snakemake",
        product=Product(r"probe\w+", ("csv", "md", "pdf", "png", "provenance.csv")),
    ),
    "sequences": Stage(
        "report_sequence",
        "report_sequence.py",
        SequenceStage,
        "snakemake",
        product=Product(r"sequence\w+", ("csv", "md", "pdf", "png", "provenance.csv")),
    ),
    "claims": Stage(
        "evaluate_claims",
        "evaluate_claims.py",
        ClaimsStage,
        "snakemake",
        product=Product("claims", ("md", "csv", "checks.csv"), is_summary=True),
    ),
    "reports": Stage(
        "write_report",
        "write_report.py",
        ReportStage,
        "snakemake",
        product=Product("report", ("html", "costs.md", "costs.csv"), is_summary=True),
    ),
    "gates": Stage("report_gate", "report_gate.py", GateStage, "snakemake", product=Product("gate", ("md", "csv"))),
}
"""All stages by name, in the order in which data flows. The name is also that of the folder below `runs/`."""

TRAINED = frozenset(name for name, stage in STAGES.items() if stage.trains_model)

PRODUCTS: Mapping[str, Product] = {name: stage.product for name, stage in STAGES.items() if stage.product is not None}
"""The products by stage."""


def settings_in(specification: Specification) -> Section:
    """The typed settings of a specification.

    Raises `ArtefactError` if they do not fit the stage in this version of the code.
    """
    try:
        return STAGES[specification.stage].settings.model_validate_json(json.dumps(specification.settings))
    except (KeyError, ValidationError):
        raise ArtefactError(
            f"{RUNS / specification.stage / specification.slug}: its settings do not fit the stage "
            f"{specification.stage} in this version of the code; ask for the table or figure instead, to plan the run "
            "with this code."
        ) from None
