"""``python -m heterodyne`` is the command ``heterodyne``."""

from heterodyne.cli.main import run

if __name__ == "__main__":
    run()
