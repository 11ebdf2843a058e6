"""Figures, measured where they are printed: ratios against a peer in the same run. Never part of a test."""
