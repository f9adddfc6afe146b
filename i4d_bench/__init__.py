"""i4d_bench: one harness for every way to fuse a driving expression with a 3D Gaussian head."""

from i4d_bench.portable import use_temporary_caches

__version__ = "0.1.0"

BENCHMARK_VERSION = 1
"""Results of different benchmark versions are never mixed; raise it when a protocol or a metric changes."""

use_temporary_caches()  # before numba and matplotlib are imported, which look for their folders then
