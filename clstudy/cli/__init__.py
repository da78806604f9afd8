"""What is typed and what is printed: one module per command, nothing else. See ``docs/architecture.md``."""
