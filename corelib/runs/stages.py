"""The stages of the workflow."""

from __future__ import annotations

PRODUCTS = ("tables", "figures", "gates")
"""Stages whose results lie there, at stable names; below `runs/` they have a specification alone."""

JOBS = {
    "assets": "adopt_assets",
    "conversion": "convert_compvis",
    "images": "render_images",
    "pretrained": "adopt_pretrained",
    "autoencoder": "train_autoencoder",
    "pipeline": "train_pipeline",
    "classifier": "train_classifier",
    "slices": "slice_images",
    "latents": "encode_images",
    "embeddings": "embed_prompts",
    "saliency": "find_salient_weights",
    "generated": "encode_generated",
    "unlearning": "unlearn",
    "samples": "gather_samples",
    "predictions": "classify_images",
    "reference": "summarize_reference",
    "fid": "measure_fid",
    "cells": "count_cells",
    "gate": "check_gate",
    "tables": "tabulate",
    "figures": "draw",
    "gates": "report_gate",
}
"""The rule of each stage, in the order in which they are shown; samples have their shards besides."""

SHARD = "sample_shard"
