"""The two benchmarks. Each supplies images by style, object and index, a pipeline and two classifiers."""
