"""``python -m clstudy.tracking``."""

import sys

from clstudy.cli.tracking import main

if __name__ == "__main__":
    sys.exit(main())
