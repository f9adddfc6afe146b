"""Pages of results: one self-contained file per report, and a site of them all.

What a page shows is JSON (`table`, `runs`, `speed`, `pictures`); how it looks and behaves is in `assets`, others' code in `vendor`.
"""
