"""Sampling of the original and of unlearned models, in addressed batches and shards."""
