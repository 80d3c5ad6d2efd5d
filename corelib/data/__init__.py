"""What training reads: slices of the data, cached latents, cached text embeddings."""
