"""What tests share: drawn faces, random heads, designs that are awake. No test imports another test."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""
