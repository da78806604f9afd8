"""Forgetting a person: finds and removes everything that a study holds about them."""
