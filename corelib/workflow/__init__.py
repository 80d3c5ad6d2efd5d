"""The interface to the Snakefile: inputs, resources and checks of each rule."""
