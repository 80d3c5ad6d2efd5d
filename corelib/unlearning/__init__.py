"""The objective, its targets and anchors, saliency masks, and the trainer of all methods."""
