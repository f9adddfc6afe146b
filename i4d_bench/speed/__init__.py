"""How fast: kernels, stages and whole frames, measured alike (DESIGN §6)."""
