"""Ways to run NUTS on processors, nodes and devices."""
