"""What the Snakefile asks: inputs, resources and checks of each rule."""
