"""``python -m clstudy.generators``."""

import sys

from clstudy.cli.generators import main

if __name__ == "__main__":
    sys.exit(main())
