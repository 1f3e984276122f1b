"""The physics: rates, correlations and the separable sum of squares, in pure JAX."""
