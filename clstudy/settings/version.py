"""The version of this package, in a module that every part can import (the package itself imports them all)."""

__version__ = "0.1.0"
