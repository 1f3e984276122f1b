"""Loggers below the name of the package."""

from __future__ import annotations

import logging


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; ``name`` is its ``__name__``."""
    logger = logging.getLogger("heterodyne")
    if not any(isinstance(h, logging.NullHandler) for h in logger.handlers):
        logger.addHandler(logging.NullHandler())
    return logging.getLogger(name)
