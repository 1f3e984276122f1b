"""One bijection from unconstrained sampling space to the documented parameters."""
