"""Tables and figures over evaluated runs, and the provenance of their numbers."""
