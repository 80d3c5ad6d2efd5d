"""What a run is and how its job runs: address, specification, manifest, lease, checkpoint, provenance, environment."""
