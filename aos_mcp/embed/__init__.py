"""Embedders: text in, unit vectors out. Nothing heavy is imported before the first text."""
