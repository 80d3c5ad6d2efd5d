"""Studies: configuration files are merged, typed and checked, and their runs are planned. Never imports torch."""
