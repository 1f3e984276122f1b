"""Least squares: many starts, exact derivatives, and what the data identify."""
