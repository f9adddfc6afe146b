"""Scores of trained avatars."""
