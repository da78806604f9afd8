"""``python -m clstudy COMMAND``, the same as ``clstudy COMMAND``."""

import sys

from clstudy.cli.commands import main

if __name__ == "__main__":
    sys.exit(main(program="python -m clstudy"))
