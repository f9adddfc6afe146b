"""One training protocol for every design (DESIGN §4)."""
