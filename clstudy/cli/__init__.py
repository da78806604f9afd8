"""What is typed and what is printed: one module per command, nothing else. See ``docs/architecture.md``."""

import sys

from clstudy.errors import UserError, require_supported_system

try:  # here, because every command's module is imported after this one, and most of them need fcntl
    require_supported_system()
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
