"""The leaves that each stage reads, as pydantic models. Imports nothing of the library but `errors`."""
