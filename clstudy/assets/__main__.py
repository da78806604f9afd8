"""``python -m clstudy.assets``."""

import sys

from clstudy.cli.assets import main

if __name__ == "__main__":
    sys.exit(main())
