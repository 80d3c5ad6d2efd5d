"""Pydantic models of the configuration leaves that each stage reads. Imports nothing of the library but `errors`."""
