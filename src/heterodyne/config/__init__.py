"""Parameters, run files and everything that is decided before data are read."""
