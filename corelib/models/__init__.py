"""Networks and their files: the diffusers pipeline, deltas, classifiers, Inception; no training."""
