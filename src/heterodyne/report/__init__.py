"""The report of a run: one HTML file that needs nothing else, with the verdict first."""

from heterodyne.report.page import build

__all__ = ["build"]
