"""Files, read within limits and written atomically: JSON, YAML, parquet, images, weights, and their hashes."""
