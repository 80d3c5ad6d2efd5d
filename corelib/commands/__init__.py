"""`python -m corelib`: one module for each command, listed in `cli`, and modules with the logic of large commands."""
