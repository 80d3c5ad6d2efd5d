"""Tables, charts, figures and reports over evaluated runs, and the provenance and cost of their numbers."""
