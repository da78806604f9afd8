"""A study: its plan and checks before it runs, its cost, what it keeps, and what can be done with it later."""
