"""Parametric heads: `procedural` (embedded), `ict` (ICT-FaceKit's file), `flame` (FLAME-format models)."""
