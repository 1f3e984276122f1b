"""Settings of Consensus Monte Carlo (defined in ``heterodyne.config.cmc``)."""

from heterodyne.config.cmc import DENSE_MASS_WARMUP_FLOOR, CMCConfig, effective_warmup_floor

__all__ = ["CMCConfig", "DENSE_MASS_WARMUP_FLOOR", "effective_warmup_floor"]
