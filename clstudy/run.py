"""``python -m clstudy.run --space hull_sizes``: the main job."""

import sys

from clstudy.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
