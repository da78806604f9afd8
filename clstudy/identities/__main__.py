"""``python -m clstudy.identities``."""

import sys

from clstudy.cli.identities import main

if __name__ == "__main__":
    sys.exit(main())
