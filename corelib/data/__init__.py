"""Training data: slices, cached latents, cached text embeddings."""
