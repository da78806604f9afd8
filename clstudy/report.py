"""``python -m clstudy.report STUDY``: a study's report made again from its rows."""

import sys

from clstudy.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
