"""The paper's world: UnlearnCanvas and Stable Diffusion v1.5, from the user's own files."""
