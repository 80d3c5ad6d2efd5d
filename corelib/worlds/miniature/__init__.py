"""The miniature: it draws its images and trains its own small networks."""
