"""Splatting: which Gaussians touch which tile. Imported only where Triton is wanted, but for the twins."""
