"""The stages whose result is the model of a row. A module of its own, so that reports need not import the registry."""

from __future__ import annotations

DELTA_STAGES = ("unlearning", "models", "edits")
"""Stages whose result is a delta of the base model."""

PIPELINE_STAGES = ("retrained",)
"""Stages whose result is a pipeline of its own."""

MODEL_STAGES = (*DELTA_STAGES, *PIPELINE_STAGES)

SEARCH_STAGES = ("relearning", "inversion", "prefixes")
"""Stages by which a probe searches for a forgotten style; the result replaces the model or its prompts."""
