"""i4d_bench: one harness for every way to fuse a driving expression with a 3D Gaussian head."""

__version__ = "0.1.0"

BENCHMARK_VERSION = 1
"""Results of different benchmark versions are never mixed; raise it when a protocol or a metric changes."""
