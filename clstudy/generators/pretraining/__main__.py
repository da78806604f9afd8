"""``python -m clstudy.generators.pretraining``."""

import sys

from clstudy.cli.pretraining import main

if __name__ == "__main__":
    sys.exit(main())
