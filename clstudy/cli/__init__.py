"""The command line: one module per command, which parses options and prints results. See ``docs/architecture.md``."""

import sys

from clstudy.errors import UserError, require_supported_system

try:  # here, because every command's module is imported after this one, and most of them need fcntl
    require_supported_system()
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
