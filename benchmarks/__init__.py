"""Measurements of speed and of calibration; ``python -m benchmarks`` runs those of speed."""
