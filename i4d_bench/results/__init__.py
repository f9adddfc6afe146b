"""Stored results: the record, the store, what they were made by, and what is read out of them."""
