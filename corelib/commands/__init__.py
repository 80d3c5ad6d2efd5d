"""`python -m corelib`: a module for each command, listed in `cli`, and beside them the modules of their logic."""
