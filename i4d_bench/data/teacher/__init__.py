"""Pairs that a 2D animator made (the teacher of a distillation, PAPER §1): their store, and how they are streamed and checked."""
