"""Studies: configuration files merged, typed and checked, and the runs that they need. Never imports torch."""
