"""``python -m clstudy.storage``."""

import sys

from clstudy.cli.storage import main

if __name__ == "__main__":
    sys.exit(main())
