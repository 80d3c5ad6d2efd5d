"""Runs and their jobs: address, specification, manifest, lease, checkpoint, provenance, environment."""
