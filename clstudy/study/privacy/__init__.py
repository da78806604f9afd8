"""Forgetting a person: everything a study holds of somebody, found and removed."""
