"""Probes: attempts to bring a forgotten style back, by fine-tuning, by a learned word, and from noised images."""
