"""Settings: profiles, search spaces, claims, and the facts about metrics that they are checked against (no torch)."""
