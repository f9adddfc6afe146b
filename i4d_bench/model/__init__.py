"""The shared pipeline around the fusion design: encoder → planes → Gaussians (Φ), and the drivers."""
