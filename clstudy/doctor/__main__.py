"""``python -m clstudy.doctor``."""

import sys

from clstudy.cli.doctor import main

if __name__ == "__main__":
    sys.exit(main())
