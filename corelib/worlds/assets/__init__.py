"""Worlds of the user's own files: the paper's (UnlearnCanvas and Stable Diffusion v1.5), and folders of any images."""
