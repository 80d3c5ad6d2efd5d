"""Slurm: the values and limits of a site, the queue, and commands that survive an outage."""
