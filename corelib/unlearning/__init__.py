"""The objective, its targets and anchors, saliency masks, and the one trainer."""
