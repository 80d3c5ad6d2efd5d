"""The paper's methods on a diffusers pipeline in memory, composed of the objects that the stages use."""
