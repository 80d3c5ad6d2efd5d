"""Costs of runs, known before they run: work, time, memory, disk."""
