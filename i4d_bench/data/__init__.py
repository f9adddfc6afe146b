"""Data sets: one on-disk format (`frames`), written by `synthetic` (rendered worlds) and `clips` (real video)."""
