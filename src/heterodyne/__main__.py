"""``python -m heterodyne`` is the command ``heterodyne``."""

import sys

from heterodyne.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
