"""Fused kernels and their plain twins (`kernels.reference`)."""
