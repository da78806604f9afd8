"""A study: what is planned and checked before it runs, what it costs, what it keeps, and what is done with it later."""
