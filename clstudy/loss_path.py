"""``python -m clstudy.loss_path STUDY``: the loss along straight lines between stages."""

import sys

from clstudy.cli.loss_path import main

if __name__ == "__main__":
    sys.exit(main())
