"""Trained avatars in use."""
