"""Pydantic models of the configuration leaves that each stage reads. Imports nothing of the library but `errors`.

A class has the name of what it configures: `FrozenModel` has the leaves of a target noise; `unlearning` computes it.
"""
