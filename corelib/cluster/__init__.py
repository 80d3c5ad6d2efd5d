"""Slurm: what the site is called and allows, the queue, and commands that survive an outage."""
