"""Turns stored rows into scores, intervals and tables. Imports neither torch nor Ray."""
