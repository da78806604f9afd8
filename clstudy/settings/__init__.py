"""What can be set: profiles, search spaces, claims, and the facts about metrics they are checked by (no torch)."""
