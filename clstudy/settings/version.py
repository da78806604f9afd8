"""The version of this package, where every part of it can ask: the package itself imports them all."""

__version__ = "0.1.0"
