"""Least squares and posterior sampling, in common coordinates."""
