"""Posteriors of heterodyne XPCS parameters from two-time correlation files."""

__version__ = "0.1.0"
