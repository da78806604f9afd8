"""``python -m clstudy.strategies``."""

import sys

from clstudy.cli.strategies import main

if __name__ == "__main__":
    sys.exit(main())
