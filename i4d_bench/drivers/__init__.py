"""What turns a driving frame into a motion code."""
