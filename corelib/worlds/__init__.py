"""The worlds. Each supplies images by style, object and index, a pipeline, and classifiers if it has any."""
