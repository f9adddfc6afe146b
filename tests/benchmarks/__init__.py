"""The speed suite, `pytest --benchmark-only`. A package, so that its conftest is not taken for the one above it."""
