"""From stored rows to scores, intervals and tables. Imports neither torch nor Ray."""
