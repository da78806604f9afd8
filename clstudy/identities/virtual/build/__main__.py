"""``python -m clstudy.identities.virtual.build``."""

import sys

from clstudy.cli.virtual_people import main

if __name__ == "__main__":
    sys.exit(main())
