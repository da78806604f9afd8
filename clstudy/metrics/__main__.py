"""``python -m clstudy.metrics``."""

import sys

from clstudy.cli.metrics import main

if __name__ == "__main__":
    sys.exit(main())
