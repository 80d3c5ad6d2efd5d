"""Files of any kind, read within bounds and written whole: JSON, YAML, parquet, images, weights, and their hashes."""
